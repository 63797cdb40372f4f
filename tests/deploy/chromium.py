"""The page of `kerasdet demo` as a person in headless Chromium uses it, and what serves it."""

import contextlib
import http.server
import os
import re
import subprocess
import sys

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--window-size=1280,900",
)


class Page:
    """The page as a person uses it."""

    def __init__(self, browser):
        self._browser = browser

    def open(self, address, ready=True):
        self._browser.get(address)
        if ready:
            self.wait("return document.body.dataset.ready")

    @contextlib.contextmanager
    def before_pages(self, script):
        """A script that every page opened meanwhile runs first."""
        command = "Page.addScriptToEvaluateOnNewDocument", {"source": script}
        number = self._browser.execute_cdp_cmd(*command)
        try:
            yield
        finally:
            self._browser.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", number)

    def reload(self):
        self._browser.refresh()
        self.wait("return document.body.dataset.ready")

    def run(self, script):
        return self._browser.execute_script(script)

    def wait(self, script):
        from selenium.webdriver.support.ui import WebDriverWait

        return WebDriverWait(self._browser, 60, 0.05).until(lambda _: self.run(script))

    def click(self, element):
        self._browser.find_element("id", element).click()

    def give(self, element, path):
        self._browser.find_element("id", element).send_keys(str(path))

    def load(self, path):
        self.run("delete document.body.dataset.ready")
        self.give("file", path)
        assert self.wait("return document.body.dataset.ready") == path.name

    def detect(self, path):
        self.run("window.found = undefined")
        self.give("photo", path)
        return self.wait("return window.found")

    def refuses(self, element, path):
        self.run("document.getElementById('message').textContent = ''")
        self.give(element, path)
        return self.wait("return document.getElementById('message').textContent")


@contextlib.contextmanager
def demo(model):
    """`kerasdet demo MODEL` on any free port, as a process of its own; gives its address."""
    command = [sys.executable, "-m", "kerasdet", "demo", model, "--port", "0", "--no-browser"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        try:
            yield re.search(r"http://localhost:\d+/", process.stdout.readline()).group()
        finally:
            process.terminate()


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass
