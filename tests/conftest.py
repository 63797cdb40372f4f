"""What tests share: drawn sets of photos, small and exact."""

import gc
import os

import pytest
from eager import eagerly

from kerasdet.data.scenes import write_scenes, write_shapes

if "PYTEST_XDIST_WORKER" in os.environ:
    # A worker a core: with more threads each, they wait for each other.
    for pool in ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS"):
        os.environ.setdefault(pool, "1")
# Graphs are millions of small objects that live long; looking through them over and over takes time.
gc.set_threshold(100_000, 50, 50)


@pytest.hookimpl(tryfirst=True)  # before `-m` chooses by what is marked here
def pytest_collection_modifyitems(items):
    for item in items:
        if item.name == "test_overfits_one_batch" and item.cls.overfit_is_slow:
            item.add_marker(pytest.mark.slow)
    # What takes longest comes first, so that in the end no core waits for another.
    items.sort(key=lambda item: item.path.name != "test_jax.py")


@pytest.fixture(scope="session")
def shapes(tmp_path_factory):
    """16 drawn pictures of 64x64 with circles, squares and triangles."""
    return write_shapes(tmp_path_factory.mktemp("shapes"), 16, size=(64, 64), seed=3)


@pytest.fixture(scope="session")
def scenes(tmp_path_factory):
    """12 drawn scenes of 120x80 with people and their heads."""
    return write_scenes(tmp_path_factory.mktemp("scenes"), 12, size=(120, 80), seed=3)


@pytest.fixture(scope="session")
def shelf(tmp_path_factory):
    """A folder of presets with one in it, `tiny_64_people`; KERASDET_ZOO names it while in use."""
    from presets import write_preset

    folder = tmp_path_factory.mktemp("shelf")
    write_preset(folder / "tiny_64_people")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KERASDET_ZOO", str(folder))
        yield folder


@pytest.fixture
def untraced():
    with eagerly():
        yield


@pytest.fixture
def one_photo(tmp_path):
    """A set of one 100x50 photo; arguments go to its only sample."""
    import numpy as np
    from PIL import Image

    from kerasdet.data import Dataset, Sample

    def make(boxes, classes=("person",), **fields):
        pixels = np.random.default_rng(0).integers(0, 256, (50, 100, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "a.png")
        boxes = np.array(boxes, np.float32).reshape(-1, 4)
        fields = {"labels": np.zeros(len(boxes), np.int32)} | fields
        return Dataset([Sample(str(tmp_path / "a.png"), boxes, **fields)], classes)

    return make
