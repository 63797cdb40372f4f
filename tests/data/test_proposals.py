"""Proposals: what selective search finds, files of them, and their way through training's warp."""

import dataclasses

import numpy as np
import pytest
from needed import needed

from kerasdet import data as data_
from kerasdet.data import Dataset, Sample
from kerasdet.data.augment import Augment
from kerasdet.data.mixing import Picture
from kerasdet.data.prepare import Prepare

SQUARE = np.array([[60, 40, 160, 120]], np.float32)


@pytest.fixture
def photo():
    picture = np.full((200, 300, 3), 90, np.uint8)
    picture[40:120, 60:160] = (220, 40, 30)
    return picture


def test_search_finds_what_stands_out(photo):
    needed("cv2.ximgproc")
    boxes = data_.selective_search(photo)
    low, high = np.maximum(boxes[:, :2], SQUARE[0, :2]), np.minimum(boxes[:, 2:], SQUARE[0, 2:])
    shared = np.prod(np.maximum(high - low, 0), -1)
    area = np.prod(boxes[:, 2:] - boxes[:, :2], -1)
    assert (shared / (area + 100 * 80 - shared)).max() > 0.9
    assert (boxes >= 0).all() and (boxes[:, 2] <= 300).all() and (boxes[:, 3] <= 200).all()
    assert len(data_.selective_search(photo, count=1)) == 1
    assert boxes.dtype == np.float32 and len(np.unique(boxes, axis=0)) == len(boxes)
    with pytest.raises(ValueError, match="mode is 'slow'; give one of fast, quality"):
        data_.selective_search(photo, mode="slow")


def test_without_extra_modules_it_is_said_what_to_install(photo, monkeypatch):
    import cv2

    monkeypatch.delattr(cv2, "ximgproc", raising=False)
    with pytest.raises(ImportError, match=r"pip install 'kerasdet\[selective-search\]'"):
        data_.selective_search(photo)


def test_files_are_read_and_not_searched_for(tmp_path, monkeypatch):
    photos = [str(tmp_path / "a" / "one.jpg"), str(tmp_path / "b" / "one.jpg")]
    samples = [Sample(path, np.zeros((0, 4), np.float32), np.zeros(0, np.int32)) for path in photos]
    dataset = Dataset(samples, ("thing",), root=tmp_path)
    for folder, rows in (("a", 3), ("b", 5)):
        path = tmp_path / "found" / folder / "one.jpg.npy"
        path.parent.mkdir(parents=True)
        np.save(path, np.arange(rows * 4).reshape(rows, 4))
    monkeypatch.chdir(tmp_path)
    given = Dataset(samples, ("thing",), root=".").with_proposals("found", count=4)
    assert [len(sample.proposals) for sample in given] == [3, 4], "however the set's folder is written"
    given = dataset.with_proposals(tmp_path / "found", count=4)
    assert [len(sample.proposals) for sample in given] == [3, 4]
    np.testing.assert_array_equal(given[0].proposals[1], [4, 5, 6, 7])
    np.save(path, np.array([1.0, 2.0]))
    with pytest.raises(ValueError, match=r"one.jpg.npy: holds an array of shape \(2,\)"):
        dataset.with_proposals(tmp_path / "found")
    np.save(path, np.array([print], object))  # a pickle, which can run code
    with pytest.raises(ValueError, match=r"one.jpg.npy: holds no array"):
        dataset.with_proposals(tmp_path / "found")
    header = {"descr": "<f4", "fortran_order": False, "shape": (10**12, 4)}
    with open(path, "wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
    with pytest.raises(ValueError, match=r"one.jpg.npy: holds no array"):
        dataset.with_proposals(tmp_path / "found")


def test_what_is_found_is_kept(shapes, tmp_path, monkeypatch):
    calls = []

    def search(path, count, mode):
        calls.append(path)
        return np.array([[1, 2, 3, 4]], np.float32)

    monkeypatch.setattr("kerasdet.data.proposals.selective_search", search)
    first = shapes[:2].with_proposals(tmp_path)
    again = shapes[:3].with_proposals(tmp_path)
    assert calls == [sample.path for sample in shapes[:3]]
    assert all(np.array_equal(sample.proposals, [[1, 2, 3, 4]]) for sample in (*first, *again))
    assert not list(tmp_path.rglob("*.part*"))


@pytest.mark.parametrize("augment", [Augment.none(), Augment(), Augment(mosaic=1.0), Augment(mixup=1.5)])
def test_proposals_go_where_the_objects_go(shapes, augment):
    """With the objects' own boxes as proposals, whatever is still an object is still a proposal."""
    samples = [dataclasses.replace(sample, proposals=sample.boxes) for sample in shapes]
    prepare = Prepare(64, "stretch", 30, 8, (), augment, proposals=40)
    checked = 0
    for number, sample in enumerate(samples):
        others = tuple(samples[number - 3 : number] or samples[-3:])
        picture = Picture(sample, others=others)
        _, targets = prepare.random_map(picture, np.random.default_rng(number))
        assert targets["proposals"].shape == (40, 4)
        found = {tuple(row) for row in np.round(targets["proposals"], 3)}
        for box in targets["boxes"][targets["labels"] >= 0]:
            assert tuple(np.round(box, 3)) in found
            checked += 1
    assert checked > 10


def test_of_several_photos_the_best_proposals_come_first():
    photos = [
        {"boxes": np.zeros((0, 4)), "proposals": np.full((3, 4), k) + np.arange(3)[:, None] / 10}
        for k in (1, 2)
    ]
    from kerasdet.data.prepare import _together

    np.testing.assert_allclose(_together(photos)["proposals"][:, 0], [1, 2, 1.1, 2.1, 1.2, 2.2])


def test_photos_of_one_name_that_lie_apart_are_refused(tmp_path):
    sets = []
    for folder in ("a", "b"):
        path = str(tmp_path / folder / "one.jpg")
        sample = Sample(path, np.zeros((0, 4), np.float32), np.zeros(0, np.int32))
        sets.append(Dataset([sample], ("thing",), root=tmp_path / folder))
    twice = sets[0] + sets[0]
    (tmp_path / "found").mkdir()
    np.save(tmp_path / "found" / "one.jpg.npy", np.zeros((2, 4), np.float32))
    assert [len(sample.proposals) for sample in twice.with_proposals(tmp_path / "found")] == [2, 2]
    with pytest.raises(ValueError, match=r"one.jpg.npy would hold the proposals of two photos, \S+a.one.jpg"):
        (sets[0] + sets[1]).with_proposals(tmp_path / "found")
