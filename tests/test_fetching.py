"""Weights that are not in their preset's folder: where the user says that they lie."""

import contextlib
import functools
import hashlib
import http.server
import shutil
import threading
import types

import keras
import numpy as np
import pytest

from kerasdet import zoo
from kerasdet.fetching import PLACE, weights_file

BYTES = b"weights"
CARD = types.SimpleNamespace(weights={"file": "a.h5", "sha256": hashlib.sha256(BYTES).hexdigest()})


@pytest.fixture
def preset(tmp_path):
    """The folder of a preset without weights."""
    (tmp_path / "zoo" / "mine").mkdir(parents=True)
    return tmp_path / "zoo" / "mine"


@pytest.fixture
def elsewhere(tmp_path):
    """A folder that has the preset's weights."""
    (tmp_path / "elsewhere" / "mine").mkdir(parents=True)
    (tmp_path / "elsewhere" / "mine" / "a.h5").write_bytes(BYTES)
    return tmp_path / "elsewhere"


@pytest.fixture
def downloads(tmp_path, monkeypatch):
    """An empty folder in the place of Keras' own."""
    (tmp_path / "keras").mkdir()
    get_file = functools.partial(keras.utils.get_file, cache_dir=str(tmp_path / "keras"))
    monkeypatch.setattr(keras.utils, "get_file", get_file)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    return tmp_path / "keras"


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@contextlib.contextmanager
def served(folder):
    """The address of a folder, while it is served."""
    handler = functools.partial(Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()


def test_the_presets_own_weights_come_first(preset, elsewhere, monkeypatch):
    (preset / "a.h5").write_bytes(BYTES)
    monkeypatch.setenv(PLACE, str(elsewhere))
    assert weights_file(preset, CARD) == preset / "a.h5"


def test_a_folder_that_has_them(preset, elsewhere, monkeypatch):
    monkeypatch.setenv(PLACE, str(elsewhere))
    assert weights_file(preset, CARD) == elsewhere / "mine" / "a.h5"
    (elsewhere / "mine" / "a.h5").unlink()
    with pytest.raises(FileNotFoundError, match=r"elsewhere/mine/a\.h5: is not there, nor is .*/zoo/mine/a"):
        weights_file(preset, CARD)


def test_without_a_place_it_is_said_what_to_name(preset, monkeypatch):
    monkeypatch.delenv(PLACE, raising=False)
    message = r"zoo/mine/a\.h5: the preset's weights are missing; name in KERASDET_WEIGHTS the folder"
    with pytest.raises(FileNotFoundError, match=message):
        weights_file(preset, CARD)


def test_an_address_is_asked_once(preset, elsewhere, downloads, monkeypatch):
    with served(elsewhere) as address:
        monkeypatch.setenv(PLACE, address)
        found = weights_file(preset, CARD)
    assert found.read_bytes() == BYTES and downloads in found.parents
    assert weights_file(preset, CARD) == found


@pytest.mark.parametrize("content", [b"other", None])
def test_what_an_address_does_not_give_is_told(preset, elsewhere, downloads, monkeypatch, content):
    file = elsewhere / "mine" / "a.h5"
    file.unlink() if content is None else file.write_bytes(content)
    with served(elsewhere) as address:
        monkeypatch.setenv(PLACE, f"{address}/")
        with pytest.raises(FileNotFoundError, match=rf"{address}/mine/a\.h5: cannot be fetched \("):
            weights_file(preset, CARD)


def test_a_preset_is_the_same_with_its_weights_elsewhere(shelf, tmp_path, monkeypatch):
    own, there = tmp_path / "zoo" / "tiny_64_people", tmp_path / "elsewhere" / "tiny_64_people"
    shutil.copytree(shelf / own.name, own)
    there.mkdir(parents=True)
    moved = (own / "model.weights.h5").rename(there / "model.weights.h5")
    before = zoo.load("tiny").get_weights()
    monkeypatch.setenv(zoo.SHELVES, str(own.parent))
    monkeypatch.setenv(PLACE, str(there.parent))
    for one, other in zip(before, zoo.load("tiny").get_weights(), strict=True):
        np.testing.assert_array_equal(other, one)
    moved.write_bytes(BYTES)
    with pytest.raises(ValueError, match=r"elsewhere/.*: these are not the weights that the card describes"):
        zoo.load("tiny")
