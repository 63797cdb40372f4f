"""Who is mixed with whom, and that no photo is decoded twice for it."""

import dataclasses
import pickle

import numpy as np
import pytest
from PIL import Image

from kerasdet import photo
from kerasdet.data import Dataset, Sample
from kerasdet.data.augment import Augment
from kerasdet.data.mixing import PhotoBuffer, Picture, WithOthers
from kerasdet.models.csp import CSP


def samples(count, copies=1):
    box = np.array([[0, 0, 4, 4]], np.float32)
    return [Sample(f"{i % count}.png", box, np.zeros(1, np.int32)) for i in range(count * copies)]


def test_others_are_of_the_batch_before():
    photos = samples(20)
    give = WithOthers(photos, 4, seed=0)
    drawn = [give.map_with_index(index, Picture(photos[index])).others for index in range(20)]
    for index, others in enumerate(drawn):
        before = (index // 4 - 1) % 5
        names = [int(other.path.removesuffix(".png")) for other in others]
        assert len(set(names)) == 3 and {name // 4 for name in names} == {before}
    # Any of them, in any order; and by the seed alone.
    assert len({others[0].path for others in drawn[4:8]} | {others[0].path for others in drawn[8:12]}) > 2
    again = WithOthers(photos, 4, seed=0).map_with_index(7, Picture(photos[7])).others
    assert again == drawn[7]
    assert any(
        WithOthers(photos, 4, seed=1).map_with_index(index, Picture(photos[index])).others != drawn[index]
        for index in range(20)
    )


@pytest.mark.parametrize(
    ("count", "copies", "expected"),
    [(1, 1, {"0.png"}), (2, 1, {"1.png"}), (2, 5, {"1.png"}), (1, 3, {"0.png"})],
)
def test_a_photo_is_its_own_partner_only_where_there_is_no_other(count, copies, expected):
    photos = samples(count, copies)
    others = WithOthers(photos, 16, seed=0).map_with_index(0, Picture(photos[0])).others
    assert {other.path for other in others} == expected


def test_the_buffer_holds_what_was_read_last(monkeypatch):
    read = []

    def decode(path):
        read.append(path)
        return np.full((10, 10, 3), len(read), np.uint8)

    monkeypatch.setattr(photo, "read", decode)
    buffer = PhotoBuffer(capacity=700)  # two photos of 300 bytes
    for name in "aabacab":
        buffer.read(name)
    assert "".join(read) == "abcb"
    assert not buffer.read("b").flags.writeable
    none = PhotoBuffer(capacity=0)
    none.read("d"), none.read("d")
    assert "".join(read) == "abcbdd"
    assert pickle.loads(pickle.dumps(buffer)).capacity == 700


def test_mixing_decodes_no_photo_twice(tmp_path, monkeypatch):
    colours = np.random.default_rng(0).integers(0, 256, (24, 3))
    for number, colour in enumerate(colours):
        Image.new("RGB", (20, 20), tuple(map(int, colour))).save(tmp_path / f"{number}.png")
    photos = [dataclasses.replace(sample, path=str(tmp_path / sample.path)) for sample in samples(24)]
    dataset = Dataset(photos, ("thing",))
    model = CSP(("thing",), backbone="mobilenet_v2_0.35", image_size=32, channels=8)
    read, own = [], photo.read

    def count(path):
        read.append(path)
        return own(path)

    monkeypatch.setattr(photo, "read", count)
    batches = dataset.batches(4, model, training=True, threads=1, augment=Augment(mosaic=1.0))
    assert sum(1 for _ in batches.epoch_dataset(0)) == 6
    # The first batch has the last one before it.
    assert len(read) <= 24 + 4 and set(read) == {sample.path for sample in photos}
