"""`kerasdet demo` in headless Chromium: the page finds what Python finds.

Chromium, its driver and the built page may be missing on a developer's machine, but not in CI.
"""

import functools
import http.server
import io
import json
import shutil
import threading
import zipfile
from types import SimpleNamespace

import numpy as np
import pytest
from chromium import FLAGS, Page, Quiet, demo
from discs import CLASSES, SIZE, photo
from keras import ops
from needed import lacking, needed
from PIL import Image

from kerasdet import cli_demo, deploy, zoo
from kerasdet.deploy import convert, flatbuffer, metadata
from kerasdet.training.recipe import read


@pytest.fixture(scope="module")
def camera_film(tmp_path_factory):
    """What Chromium's fake camera sees: a photo of discs, as an uncompressed film of one picture."""
    picture = np.asarray(Image.fromarray(photo(6, scale=4)[0]).convert("YCbCr"), np.int16)
    # Films have luma from 16 to 235 and colours at half the size.
    luma = (picture[..., 0] * 219 / 255 + 16).round()
    colours = [(picture[::2, ::2, i] - 128) * 224 / 255 + 128 for i in (1, 2)]
    path = tmp_path_factory.mktemp("film") / "discs.y4m"
    side = SIZE * 4
    with open(path, "wb") as film:
        film.write(f"YUV4MPEG2 W{side} H{side} F10:1 Ip A1:1 C420mpeg2\nFRAME\n".encode())
        for plane in (luma, *colours):
            film.write(plane.round().astype(np.uint8).tobytes())
    return path


@pytest.fixture(scope="module")
def browser(camera_film):
    try:
        cli_demo.page()
        from selenium import webdriver
    except (FileNotFoundError, ImportError) as error:
        lacking(str(error))
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not (chromium and driver):
        lacking("chromium or chromedriver is missing; on Debian: apt install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    film = f"--use-file-for-fake-video-capture={camera_film}"
    for flag in (*FLAGS, film, "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"):
        options.add_argument(flag)
    with webdriver.Chrome(options=options, service=webdriver.ChromeService(driver)) as browser:
        yield Page(browser)


def assert_same(found, ours, pixels=0.05, score=1e-3):
    """What the page found is what `Detections` say, from a score of .3 on."""
    found = [row for row in found if row["score"] >= 0.3]
    assert [row["name"] for row in found] == ours.names and len(ours) > 0
    np.testing.assert_allclose([row["score"] for row in found], ours.scores, atol=score)
    np.testing.assert_allclose([row["box"] for row in found], ours.boxes, atol=pixels)


@pytest.mark.filterwarnings("ignore:int8 is calibrated on")
def test_the_page_finds_what_python_finds_also_without_a_server(browser, exported, letterboxed, pictures):
    path = exported()[0]
    with demo(path) as address:
        browser.open(address)
        assert browser.run("return crossOriginIsolated")  # so LiteRT runs with threads
        for picture in pictures:
            assert_same(browser.detect(picture), deploy.LiteRTDetector(path).detect(picture))
        for other in (exported("int8")[0], letterboxed):
            browser.load(other)
            assert_same(browser.detect(pictures[0]), deploy.LiteRTDetector(other).detect(pictures[0]))
        browser.wait("return navigator.serviceWorker.ready.then(it => it.active.state === 'activated')")
    browser.reload()
    assert_same(browser.detect(pictures[0]), deploy.LiteRTDetector(path).detect(pictures[0]))


def test_the_page_lists_what_scores_enough(browser, exported, pictures):
    with demo(exported()[0]) as address:
        browser.open(address)
        found = browser.detect(pictures[0])
        counts = []
        for score in (0.05, found[0]["score"] - 0.01, 0.9999):
            browser.run(
                "const slider = document.getElementById('score'); slider.step = 'any';"
                f"slider.value = {score}; slider.max = 1; slider.dispatchEvent(new Event('input'))"
            )
            counts.append(browser.run("return document.querySelectorAll('#list li').length"))
        above = [sum(row["score"] >= score for row in found) for score in (0.05, found[0]["score"] - 0.01)]
        assert counts == [*above, 0] and above[0] > 0
        assert browser.run("return document.getElementById('count').textContent") == "Nothing found"


def test_the_camera(browser, exported, camera_film):
    with demo(exported()[0]) as address:
        browser.open(address)
        browser.click("camera")
        found = [row for row in browser.wait("return window.found") if row["score"] >= 0.3]
        browser.wait("return parseFloat(document.getElementById('frames').textContent) > 0")
        browser.click("camera")
        assert browser.wait("return document.getElementById('rate').hidden")
    picture, boxes, labels = photo(6, scale=4)
    size = browser.run("const p = document.getElementById('picture'); return [p.width, p.height]")
    assert size[0] == size[1]  # the camera has the film's shape
    assert sorted(row["name"] for row in found) == sorted(CLASSES[label] for label in labels)
    for row in found:
        nearest = np.abs(boxes - row["box"]).max(1).min()
        assert nearest < 8  # a twelfth of a disc: the film's colours are coarse


def test_the_camera_is_off_when_the_page_says_so(browser, exported):
    """Stopped and started again while the browser still asks whether it may be used."""
    with demo(exported()[0]) as address:
        browser.open(address)
        browser.run(
            """
            const devices = navigator.mediaDevices, ask = devices.getUserMedia.bind(devices);
            window.tracks = [];
            devices.getUserMedia = async (wanted) => {
              await new Promise((later) => setTimeout(later, 500));
              const stream = await ask(wanted);
              window.tracks.push(...stream.getTracks());
              return stream;
            };
            """
        )
        for _ in range(3):
            browser.click("camera")
        browser.wait("return window.tracks.length === 2")
        browser.wait("return parseFloat(document.getElementById('frames').textContent) > 0")
        states = "return window.tracks.map((track) => track.readyState)"
        assert sorted(browser.run(states)) == ["ended", "live"]
        browser.click("camera")
        browser.wait("return document.getElementById('rate').hidden")
        browser.wait("return window.tracks.every((track) => track.readyState === 'ended')")


def test_a_camera_that_is_taken_away(browser, exported):
    with demo(exported()[0]) as address:
        browser.open(address)
        browser.run(
            """
            const devices = navigator.mediaDevices, ask = devices.getUserMedia.bind(devices);
            devices.getUserMedia = async (wanted) => (window.stream = await ask(wanted));
            """
        )
        browser.click("camera")
        browser.wait("return parseFloat(document.getElementById('frames').textContent) > 0")
        browser.run("window.stream.getTracks()[0].dispatchEvent(new Event('ended'))")
        said = browser.wait("return document.getElementById('message').textContent")
        assert said == "The camera was taken away."
        assert browser.run("return document.getElementById('rate').hidden")
        assert browser.run("return window.stream.getTracks()[0].readyState") == "ended"


def test_the_last_photo_asked_for_is_shown(browser, exported, pictures):
    """Though the one before takes longer to read."""
    with demo(exported()[0]) as address:
        browser.open(address)
        browser.run(
            """
            const read = createImageBitmap;
            let slow = true;
            window.createImageBitmap = async (...given) => {
              const wait = slow ? 500 : 0;
              slow = false;
              await new Promise((later) => setTimeout(later, wait));
              return read(...given);
            };
            window.shown = 0;
            let found;
            Object.defineProperty(window, "found", {
              get: () => found, set: (value) => { found = value; window.shown++; },
            });
            """
        )
        for picture in pictures[:2]:
            browser.give("photo", picture)
        browser.wait("return window.shown === 2")
        ours = deploy.LiteRTDetector(exported()[0])
        assert_same(browser.run("return window.found"), ours.detect(pictures[1]))
        assert ours.detect(pictures[0]).labels.tolist() != ours.detect(pictures[1]).labels.tolist()


def test_nothing_shows_through_a_transparent_photo(browser, exported, pictures, tmp_path):
    with demo(exported()[0]) as address:
        browser.open(address)
        side = Image.open(pictures[0]).size
        Image.new("RGB", side, "white").save(tmp_path / "white.png")
        Image.new("RGBA", side, (255, 0, 0, 0)).save(tmp_path / "nothing.png")
        for name, colour in (("white", [255] * 3), ("nothing", [0] * 3)):
            browser.run("window.found = undefined")
            browser.give("photo", tmp_path / f"{name}.png")
            browser.wait("return window.found !== undefined")
            pixel = browser.run(
                "const pen = document.getElementById('picture').getContext('2d');"
                "return [...pen.getImageData(3, 3, 1, 1).data]"
            )
            assert pixel == [*colour, 255]


def test_a_browser_that_keeps_nothing(browser, exported, pictures):
    """As with cookies blocked: whoever asks for what is kept is refused."""
    refuse = "Object.defineProperty(window, 'localStorage', { get() { throw new Error('refused'); } })"
    with demo(exported()[0]) as address, browser.before_pages(refuse):
        browser.open(address)
        assert_same(browser.detect(pictures[0]), deploy.LiteRTDetector(exported()[0]).detect(pictures[0]))
        browser.click("theme")
        assert browser.run("return document.documentElement.dataset.theme")


def test_a_page_without_its_detector_is_not_said_to_be_kept(browser, exported):
    hidden = "return document.getElementById('offline').hidden"
    nothing = "CacheStorage.prototype.match = async () => undefined"
    with demo(exported()[0]) as address:
        with browser.before_pages(nothing):
            browser.open(address)
            later = "new Promise((go) => setTimeout(go, 300))"
            browser.run(f"return navigator.serviceWorker.ready.then(() => {later})")
            assert browser.run(hidden)
        browser.open(address)
        assert browser.wait(hidden.replace("return ", "return !"))


def test_a_photo_may_come_before_a_detector(browser, exported, pictures):
    """And what LiteRT needs may fail to come the first time."""
    handler = functools.partial(Quiet, directory=str(cli_demo.page()))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        browser.open(f"http://localhost:{server.server_port}/", ready=False)
        said = "return document.getElementById('message').textContent"
        assert browser.wait(said).startswith("Choose or drop a .tflite")
        assert "no detector yet" in browser.refuses("photo", pictures[0])
        browser.run("window.found = undefined")
        browser.load(exported()[0])
        ours = deploy.LiteRTDetector(exported()[0])
        assert_same(browser.wait("return window.found"), ours.detect(pictures[0]))
        server.shutdown()


def test_many_objects_are_counted_where_they_are_not_listed(browser, exported, pictures):
    with demo(exported()[0]) as address:
        browser.open(address)
        browser.detect(pictures[0])
        browser.run(
            """
            const one = window.found[0];
            for (let i = 0; i < 20; i++) window.found.push({ ...one });
            document.getElementById('score').value = 0.3;
            document.getElementById('score').dispatchEvent(new Event('input'));
            """
        )
        sure = browser.run("return window.found.filter((each) => each.score >= 0.3).length")
        listed = "return [...document.querySelectorAll('#list li')].map((item) => item.textContent)"
        items = browser.run(listed)
        assert len(items) == 13 and items[-1] == f"and {sure - 12} more"


def test_what_cannot_be_kept_is_shown_all_the_same(browser):
    """The service worker's own code, in a browser that has no room left."""
    browser.open("about:blank", ready=False)
    found = browser.run(
        """
        const listeners = {}, kept = [], asked = [];
        const location = "http://page.test/demo/offline.js";
        const self = { addEventListener: (name, listener) => (listeners[name] = listener), location };
        const full = async (address) => { kept.push(address); throw new DOMException("full"); };
        const caches = { open: async () => ({ put: full, match: async () => undefined }) };
        let status = 200;
        const fetch = async (request, options) => {
          asked.push(options.cache);
          return new Response("from the server", { status });
        };
        """
        + (cli_demo.page() / "offline.js").read_text()
        + """
        const event = (url) => {
          let answered;
          const request = { url, method: "GET" };
          listeners.fetch({ request, waitUntil: () => {}, respondWith: (answer) => (answered = answer) });
          return answered;
        };
        return (async () => {
          const whole = await (await event("http://page.test/demo/model.tflite?a#b")).text();
          await (await event("http://page.test/demo/index.html")).text();
          status = 206;
          const part = await (await event("http://page.test/demo/model.tflite")).text();
          const others = ["http://page.test/", "http://page.test/demo/mine.html", "http://other.test/demo/"];
          return [whole, part, kept, asked, others.filter(event)];
        })();
        """
    )
    assert found[:2] == ["from the server"] * 2
    # A newer page beside the scripts of an older one would be a page without scripts.
    assert found[2] == ["http://page.test/demo/model.tflite"], "the detector, and no page"
    assert found[3] == ["no-cache"] * 3, "so that it is the newest"
    assert found[4] == [], "what others serve at this address is theirs"


def test_a_new_version_keeps_the_detector_and_other_pages_and_a_stalled_server_is_not_waited_for(browser):
    """The service worker's own code, with caches of our own."""
    browser.open("about:blank", ready=False)
    found = browser.run(
        """
        const listeners = {}, page = "http://page.test/demo/";
        const clients = { claim: async () => {} };
        const self = {
          addEventListener: (name, listener) => (listeners[name] = listener),
          location: page + "offline.js", clients,
        };
        const kept = {
          [`kerasdet ${page} old`]: { "model.tflite": "the old detector" },
          "kerasdet http://page.test/other/ old": { "model.tflite": "another page's" },
        };
        const name = (request) => (request.url ?? request).replace(page, "");
        const caches = {
          keys: async () => Object.keys(kept),
          delete: async (which) => delete kept[which],
          open: async (which) => {
            const files = (kept[which] ??= {});
            return {
              match: async (request) => files[name(request)],
              put: async (request, response) => { files[name(request)] = response; },
            };
          },
        };
        const fetch = () => new Promise(() => {});
        """
        + (cli_demo.page() / "offline.js").read_text().replace("4000", "40")
        + """
        return (async () => {
          let done;
          listeners.activate({ waitUntil: (promise) => (done = promise) });
          await done;
          const names = Object.keys(kept);
          let answered;
          const request = { url: page + "model.tflite", method: "GET" };
          listeners.fetch({ request, waitUntil: () => {}, respondWith: (answer) => (answered = answer) });
          return [names, await answered];
        })();
        """
    )
    other, own = sorted(found[0], key=lambda name: "/demo/" in name)
    assert other == "kerasdet http://page.test/other/ old"
    assert own.startswith("kerasdet http://page.test/demo/ ") and not own.endswith("old")
    assert found[1] == "the old detector"


@pytest.mark.parametrize(
    "answer", ["throw new TypeError('no server')", "return new Response('in trouble', { status: 503 })"],
    ids=["none", "in trouble"],
)
def test_without_a_server_the_page_is_there_by_both_of_its_names(browser, answer):
    browser.open("about:blank", ready=False)
    found = browser.run(
        """
        const listeners = {}, page = "http://page.test/demo/";
        const self = {
          addEventListener: (name, listener) => (listeners[name] = listener), location: page + "offline.js",
        };
        const match = async (address) => ({ [page]: "the page" })[address];
        const caches = { open: async () => ({ match }) };
        const fetch = async () => { ANSWER; };
        """.replace("ANSWER", answer)
        + (cli_demo.page() / "offline.js").read_text()
        + """
        const get = async (url) => {
          let answered;
          const request = { url: page + url, method: "GET" };
          listeners.fetch({ request, waitUntil: () => {}, respondWith: (answer) => (answered = answer) });
          return answered;
        };
        return Promise.all(["", "index.html", "?model=a", "index.html#top"].map(get));
        """
    )
    assert found == ["the page"] * 4


def test_any_web_server_will_do(browser, exported, pictures):
    """Without headers there are no threads, and without a file beside the page one is chosen."""
    handler = functools.partial(Quiet, directory=str(cli_demo.page()))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        browser.open(f"http://localhost:{server.server_port}/", ready=False)
        assert not browser.run("return crossOriginIsolated")
        asks = "return document.getElementById('message').textContent"
        assert browser.wait(asks).startswith("Choose or drop a .tflite")
        browser.load(exported()[0])
        assert_same(browser.detect(pictures[0]), deploy.LiteRTDetector(exported()[0]).detect(pictures[0]))
        server.shutdown()


def test_the_page_says_what_it_cannot_take_and_goes_on(browser, exported, pictures, tmp_path):
    with demo(exported()[0]) as address:
        browser.open(address)
        (tmp_path / "text.tflite").write_text("hello, this is text")
        (tmp_path / "text.jpg").write_text("hello, this is text")
        (tmp_path / "cut.tflite").write_bytes(exported()[0].read_bytes()[:2000])
        assert "text.tflite is not a .tflite file" in browser.refuses("file", tmp_path / "text.tflite")
        assert "This photo cannot be read" in browser.refuses("photo", tmp_path / "text.jpg")
        assert "cut.tflite cannot be run" in browser.refuses("file", tmp_path / "cut.tflite")
        model = flatbuffer.read(exported()[0].read_bytes())
        model.metadata = []
        foreign = tmp_path / "foreign.tflite"
        foreign.write_bytes(flatbuffer.write(model))
        browser.load(foreign)  # of uint8
        # Its image as float32, which the file casts it to first.
        (number,) = model.subgraphs[0].inputs
        model.subgraphs[0].tensors[number].type = 0
        floats = tmp_path / "floats.tflite"
        floats.write_bytes(flatbuffer.write(model))
        assert "floats.tflite takes float32 images" in browser.refuses("file", floats)
        raw = exported(outputs="raw")[0]
        assert "ends in raw. Export it with --outputs detections" in browser.refuses("file", raw)
        assert_same(browser.detect(pictures[0]), deploy.LiteRTDetector(foreign).detect(pictures[0]))


@pytest.mark.parametrize("packing", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_what_is_behind_a_model_is_looked_at(browser, exported, tmp_path, packing):
    sound = exported()[0].read_bytes()
    about = zipfile.ZipFile(exported()[0]).read("kerasdet.json").decode()

    def file(name, **texts):
        tail = io.BytesIO()
        with zipfile.ZipFile(tail, "w", packing) as archive:
            for entry, text in texts.items():
                archive.writestr(entry, text)
        (tmp_path / name).write_bytes(flatbuffer.write(flatbuffer.read(sound)) + tail.getvalue())
        return tmp_path / name

    with demo(exported()[0]) as address:
        browser.open(address)
        long = "is longer than 1048576 bytes"
        for name, texts, said in (
            ("long.tflite", {"kerasdet.json": about + " " * 2**21}, f"kerasdet.json {long}"),
            ("names.tflite", {"labels.txt": "a\n" * 2**20}, f"labels.txt {long}"),
            ("many.tflite", dict.fromkeys(map(str, range(101)), ""), "101 files, more than 100"),
        ):
            refused = browser.refuses("file", file(name, **texts))
            assert refused == f"What is behind the model in {name} cannot be read ({said}). Export it again."
        changes = ({"classes": "red"}, {"classes": [1]}, {"resize": "crop"}, {"outputs": None})
        wrong = [json.dumps(json.loads(about) | change) for change in changes]
        for number, text in enumerate(["no json", "null", "{}", *wrong]):
            refused = browser.refuses("file", file(f"{number}.tflite", **{"kerasdet.json": text}))
            assert refused == (
                f"What {number}.tflite says of itself, in kerasdet.json, is damaged. Export it again."
            )
        browser.load(file("sound.tflite", **{"kerasdet.json": about + " " * (2**20 - len(about))}))


@pytest.fixture
def giving(tmp_path):
    """Writes a file that gives the same of every photo: a red and a blue object, but for `changes`."""

    def write(name, names=CLASSES, size=SIZE, **changes):
        objects = {
            "boxes_rel_yxyx": [[[0.1, 0.2, 0.5, 0.6], [0.3, 0.3, 0.9, 0.8]]],
            "classes": [[0, 1]], "scores": [[0.9, 0.8]], "count": [2],
        }

        def forward(images, outputs):
            # What hangs on the photo is computed when the file runs.
            always = ops.cast(images[0, 0, 0, 0], "float32") >= 0
            values = (objects | changes).items()
            return {key: ops.where(always, np.array(value, np.float32), 0.0) for key, value in values}

        data, _ = convert.convert(SimpleNamespace(image_size=size, forward=forward), "detections")
        # The converter makes infinity the largest number there is.
        largest, infinity = (np.float32(value).tobytes() for value in (np.finfo(np.float32).max, np.inf))
        data = data.replace(largest, infinity)
        about = {"name": name, "classes": list(names), "outputs": "detections", "resize": "stretch"}
        path = tmp_path / f"{name}.tflite"
        path.write_bytes(metadata.append_files(data, about) if names else data)
        return path

    return write


def test_a_count_without_end(browser, exported, giving, pictures):
    """The page counts as far as there are rows; what is no number counts nothing."""
    with demo(exported()[0]) as address:
        browser.open(address)
        for name, count, objects in (("none", np.nan, 0), ("endless", np.inf, 2), ("huge", 1e9, 2)):
            browser.load(giving(name, count=[count]))
            browser.run("window.found = undefined")
            browser.give("photo", pictures[0])
            browser.wait("return window.found !== undefined")
            assert browser.run("return window.found.length") == objects


def test_what_is_no_number_is_no_object(browser, exported, giving, pictures):
    """Nor is a box that ends before it begins."""
    corners = np.tile([0.1, 0.2, 0.5, 0.6], (1, 8, 1))
    corners[0, [1, 2, 3, 4], [0, 3, 0, 1]] = np.nan, np.inf, 0.55, 0.65
    scores = [[0.9, 0.8, 0.8, 0.8, 0.8, np.nan, np.inf, 0.7]]
    path = giving("odd", boxes_rel_yxyx=corners, classes=np.zeros((1, 8)), scores=scores, count=[8])
    with demo(exported()[0]) as address:
        browser.open(address)
        browser.load(path)
        found = browser.detect(pictures[0])
        assert [row["score"] for row in found] == pytest.approx([0.9, 0.7])
        box = np.array([0.2, 0.1, 0.6, 0.5]) * np.tile(Image.open(pictures[0]).size, 2)
        np.testing.assert_allclose([row["box"] for row in found], [box, box], atol=0.05)


def test_graphs_that_are_no_detectors(browser, exported, giving, pictures):
    two = np.full((1, 2), 0.5)
    with demo(exported()[0]) as address:
        browser.open(address)
        for name, changes in (
            ("wide", {"size": 4100}),
            ("flat", {"boxes_rel_yxyx": np.full((1, 2, 3), 0.5)}),
            ("few", {"boxes_rel_yxyx": np.full((1, 1, 4), 0.5)}),
            ("unclassed", {"classes": two[:, :1]}),
            ("unscored", {"scores": two[:, :1]}),
            ("twice", {"scores": np.repeat(two, 2, 0)}),
            ("uncounted", {"count": two[0]}),
        ):
            assert browser.refuses("file", giving(name, **changes)) == (
                f"{name}.tflite is no detector that this page knows: a square photo of up to 4096 px goes "
                "in, and boxes, classes, scores and count come out."
            )
        browser.load(giving("sound"))


def test_a_class_without_a_name(browser, exported, giving, pictures):
    """Is refused where there are names, unless it is too faint to show; without any, numbers are names."""
    with demo(exported()[0]) as address:
        browser.open(address)
        for name, label in (("beyond", 2), ("before", -1), ("odd", np.nan)):
            said = browser.refuses("file", giving(name, classes=[[0, label]]))
            shown = "NaN" if name == "odd" else label
            assert said == (
                f"{name}.tflite finds class {shown}, and has names for 0 to 1. Export it again."
            )
        browser.load(giving("faint", classes=[[0, 2]], scores=[[0.9, 0.04]]))
        browser.load(giving("nameless", names=()))
        assert [row["name"] for row in browser.detect(pictures[0])] == ["0", "1"]


# Each precision, and images of float32, in every third preset.
FILES = (("float32", "uint8"), ("float16", "float32"), ("int8", "uint8"))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:int8 is calibrated on", "ignore:.*file and Keras disagree")
@pytest.mark.parametrize(
    "preset, precision, input_dtype",
    [(preset, *FILES[i % len(FILES)]) for i, preset in enumerate(zoo.names())],
)
def test_presets_in_the_page(browser, preset, precision, input_dtype, tmp_path):
    needed("skimage")
    model = zoo.load(preset)
    picture = tmp_path / "photo.png"
    Image.fromarray(read(zoo.shelves()[-1] / "publish.py").look(model)[1].photo).save(picture)
    path = tmp_path / f"{preset}.tflite"
    # Whether one photo is enough for int8 is not the page's question.
    photos = {"calibration" if precision == "int8" else "check_photos": [picture]}
    model.export(path, precision=precision, input_dtype=input_dtype, on_parity="warn", **photos)
    with demo(path) as address:
        browser.open(address)
        assert_same(browser.detect(picture), deploy.LiteRTDetector(path).detect(picture))
