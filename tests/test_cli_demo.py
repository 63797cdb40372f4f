"""`kerasdet demo`: what it serves, and what it says when it cannot. The page itself: deploy/test_web.py."""

import http.server
import socket
import threading
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from commands import run

from kerasdet import cli_demo, deploy
from kerasdet.deploy import flatbuffer


@pytest.fixture
def page(tmp_path, monkeypatch):
    """A page, as a wheel carries it, of one line."""
    folder = tmp_path / "installed" / "_web"
    folder.mkdir(parents=True)
    (folder / "index.html").write_text("<p>page</p>")
    (folder / "litert.wasm").write_bytes(b"\0asm")
    monkeypatch.setattr(cli_demo, "__file__", str(folder.parent / "cli_demo.py"))
    return folder


def test_page_and_model_are_served_to_this_machine_alone(page, tmp_path):
    (tmp_path / "mine.tflite").write_bytes(b"model")
    assert cli_demo.page() == page
    with cli_demo._server(page, 0) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        assert server.server_address[0] == "127.0.0.1"

        def get(path):
            return urllib.request.urlopen(f"http://localhost:{server.server_port}{path}")

        with pytest.raises(urllib.error.HTTPError, match="404"):
            get("/model.tflite")
        server.model = tmp_path / "mine.tflite"
        assert get("/model.tflite").read() == b"model"
        answer = get("/")
        assert answer.read() == b"<p>page</p>" and answer.headers["Cache-Control"] == "no-store"
        # What threads need, and what the page promises.
        assert answer.headers["Cross-Origin-Opener-Policy"] == "same-origin"
        assert answer.headers["Cross-Origin-Embedder-Policy"] == "require-corp"
        assert answer.headers["Content-Security-Policy"].startswith("default-src 'self'")
        assert get("/litert.wasm").headers["Content-Type"] == "application/wasm"
        with pytest.raises(urllib.error.HTTPError, match="404"):
            get("/../../mine.tflite")
        server.shutdown()


def test_a_page_that_is_not_built_is_said(page, tmp_path, monkeypatch):
    (page / "index.html").unlink()
    said = run("demo", "--no-browser", code=2)
    assert "this installation came without the page" in said and "npm ci && npm run build" in said
    checkout = tmp_path / "checkout"
    (checkout / "export" / "web").mkdir(parents=True)
    (checkout / "pyproject.toml").touch()
    monkeypatch.setattr(cli_demo, "__file__", str(checkout / "kerasdet" / "cli_demo.py"))
    said = run("demo", "--no-browser", code=2)
    assert f"{checkout / 'export' / 'web'}: the page is not built; run `npm ci && npm run" in said


def test_a_path_with_brackets_is_told_whole(page, tmp_path, monkeypatch):
    model = tmp_path / "[best]" / "[/b].tflite"
    monkeypatch.setattr(cli_demo, "exported", lambda model, folder: model)
    monkeypatch.setattr(http.server.ThreadingHTTPServer, "serve_forever", lambda self: None)
    assert f"{model} runs at http://localhost:" in run("demo", model, "--no-browser", "--port", 0)


def test_a_port_that_is_taken_is_said(page):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said = run("demo", "--no-browser", "--port", port, code=2)
    assert f"port {port} cannot be used" in said and "give another --port" in said


def test_a_preset_is_exported_and_a_file_taken_as_it_is(shelf, tmp_path):
    made = cli_demo.exported("tiny_64_people", tmp_path)
    assert made.parent == tmp_path
    detector = deploy.LiteRTDetector(made)
    assert detector.outputs == "detections" and detector.image_size == 64
    assert detector.detect(np.zeros((48, 64, 3), np.uint8)).photo.shape == (48, 64, 3)
    assert cli_demo.exported(str(made), tmp_path / "unused") == made
    # As another's, which takes float images and says how they are normalised: the page cannot do that.
    model = flatbuffer.read(made.read_bytes())
    (number,) = model.subgraphs[0].inputs
    model.subgraphs[0].tensors[number].type = 0
    (tmp_path / "floats.tflite").write_bytes(flatbuffer.write(model))
    with pytest.raises(ValueError, match=r"floats\.tflite: takes float32 images, and the page does not know"):
        cli_demo.exported(str(tmp_path / "floats.tflite"), tmp_path)
    with pytest.raises(FileNotFoundError, match="none.tflite"):
        cli_demo.exported("none.tflite", tmp_path)


def test_a_file_of_other_outputs_is_refused(monkeypatch):
    class Boxes:
        outputs = "boxes"

    monkeypatch.setattr(cli_demo.zoo_, "load_file", lambda _: Boxes())
    with pytest.raises(ValueError, match="ends in boxes; export it with --outputs detections"):
        cli_demo.exported("boxes.tflite", Path())
