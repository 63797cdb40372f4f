"""The command line's `kerasdet demo`: a page in the browser that runs a detector on photos and camera.

The page is `export/web`, built by Node; a wheel carries it where it was built before the wheel was. What is
imported here is light, as in `cli`.
"""

from __future__ import annotations

import functools
import http.server
import os
import sys
import tempfile
import threading
import webbrowser
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from kerasdet import zoo as zoo_
from kerasdet.cli_evaluate import Model

# Threads share memory only in a page that is cut off from others (the first two); the policy is what the
# page promises: photos go nowhere.
_HEADERS = {
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Content-Security-Policy": (
        "default-src 'self'; script-src 'self' 'wasm-unsafe-eval'; img-src 'self' blob: data:; "
        "worker-src 'self' blob:"
    ),
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",  # the next demo has another model under the same address
}
_TYPES = {
    ".js": "text/javascript", ".wasm": "application/wasm", ".tflite": "application/octet-stream",
    ".webmanifest": "application/manifest+json",
}


def demo(
    model: Model = "csp",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes any that is free.")] = 8000,
    browser: Annotated[bool, typer.Option(help="Open the page in the browser.")] = True,
):
    """Opens a page that detects on your photos and camera, in the browser alone."""
    folder = page()
    console = Console(soft_wrap=True)
    with tempfile.TemporaryDirectory(prefix="kerasdet_demo_") as work:
        with _server(folder, port) as server:
            with console.status(f"Making {escape(model)} ready for the browser"):
                server.model = exported(model, Path(work))
            address = f"http://localhost:{server.server_port}/"
            console.print(f"{escape(model)} runs at [bold]{address}[/]; Ctrl+C ends it", highlight=False)
            if browser:
                # Some are waited for until they are closed, and would wait for the page.
                threading.Thread(target=webbrowser.open, args=(address,), daemon=True).start()
            try:
                server.serve_forever()
            except KeyboardInterrupt:
                console.print("stopped")


def page() -> Path:
    """The folder of the built page.

    Raises:
        FileNotFoundError: it was not built.
    """
    package = Path(__file__).parent
    source = package.parent / "export" / "web"
    ours = source.is_dir() and (package.parent / "pyproject.toml").is_file()
    folder = source / "dist" if ours else package / "_web"
    if (folder / "index.html").is_file():
        return folder
    if ours:
        raise FileNotFoundError(
            f"{source}: the page is not built; run `npm ci && npm run build` there (Node 20.19 or newer), "
            "or `make page` beside pyproject.toml"
        )
    raise FileNotFoundError(
        f"{folder}: this installation came without the page; in a clone of kerasdet's repository, run "
        "`npm ci && npm run build` in export/web, and `kerasdet demo` from there"
    )


def exported(model: str, folder: Path) -> Path:
    """A `.tflite` with MediaPipe's four outputs: the file itself, or one made in `folder`.

    Args:
        model: what `kerasdet.load` takes.
        folder: for what is made of a preset or a `.keras` file, in float32.

    Raises:
        ValueError, FileNotFoundError: as of `kerasdet.load`; or a `.tflite` with other outputs, or one
            of another's that takes no uint8.
    """
    detector = zoo_.load_file(model)
    if model.lower().endswith(".tflite"):
        if detector.outputs != "detections":
            raise ValueError(
                f"{model}: ends in {detector.outputs}; export it with --outputs detections to run it here"
            )
        if "outputs" not in detector.about and detector.dtype != "uint8":
            raise ValueError(
                f"{model}: takes {detector.dtype} images, and the page does not know how another's are "
                "normalised; convert it with uint8 images, or use kerasdet detect"
            )
        return Path(model)
    made = folder / f"{Path(model).stem}.tflite"
    detector.export(made)
    return made


class _Server(http.server.ThreadingHTTPServer):
    """Serves the page and, once it has one, `model` as `/model.tflite`."""

    model: Path | None = None
    # On Windows two servers would share the port, and either answer.
    allow_reuse_address = os.name != "nt"

    def handle_error(self, request, client_address):
        # A browser that hangs up, when its page is closed or loaded anew, is no error.
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


def _server(folder: Path, port: int) -> _Server:
    try:
        return _Server(("127.0.0.1", port), functools.partial(_Handler, directory=str(folder)))
    except OSError as error:
        raise OSError(f"port {port} cannot be used ({error.strerror}); give another --port") from error


class _Handler(http.server.SimpleHTTPRequestHandler):
    extensions_map = http.server.SimpleHTTPRequestHandler.extensions_map | _TYPES

    def translate_path(self, path):
        if self.server.model is not None and path.partition("?")[0] == "/model.tflite":
            return str(self.server.model)
        return super().translate_path(path)

    def end_headers(self):
        for name, value in _HEADERS.items():
            self.send_header(name, value)
        super().end_headers()

    def log_message(self, *_):
        pass
