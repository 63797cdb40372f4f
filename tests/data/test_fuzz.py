"""Sets and photos from strangers: each is read, or refused with a sentence that names the file.

`bench/fuzz.py` runs the same on many more cases.
"""

import os
import sys
import tempfile
import warnings
from pathlib import Path

from needed import needed

needed("hypothesis")  # before what imports it
# ruff: noqa: E402
from hypothesis import given, settings

sys.path.append(str(Path(__file__).parents[2] / "bench"))

import hostile

import kerasdet.data
from kerasdet import photo

few = settings(max_examples=150, derandomize=True, database=None, deadline=None)


@few
@given(hostile.sets())
def test_hostile_sets(files):
    with tempfile.TemporaryDirectory() as work, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        folder = Path(work) / "set"
        hostile.write_set(folder, files)
        try:
            dataset = kerasdet.data.load(folder)
        except (ValueError, FileNotFoundError) as error:
            assert any(os.path.basename(name) in str(error) for name in (folder, *files)), error
            return
        for sample in dataset:
            assert folder in Path(sample.path).parents
            assert sample.boxes.min(initial=0) >= 0 and sample.width <= 10**6


@few
@given(hostile.photos())
def test_hostile_photos(data):
    with tempfile.TemporaryDirectory() as work:
        path = Path(work) / "photo.jpg"
        path.write_bytes(data)
        for read in (photo.read, photo.size_of):
            try:
                read(path)
            except ValueError as error:
                assert "photo.jpg: " in str(error)


def test_what_is_put_in_stays_as_it_is():
    """Else one case hangs on those before it."""
    put_in = {}
    swaps = [(("a",), put_in), (("a", "b"), 1), (("a", "b"), put_in)]
    assert hostile._swapped('{"a": 0}', swaps) == '{"a": {"b": {}}}' and put_in == {}
