"""The doctor names every fault that is planted and nothing else; what it leaves is sound."""

import json

import numpy as np
import pytest
from PIL import Image

from kerasdet.data import load
from kerasdet.data.doctor import KINDS, count_objects, examine
from kerasdet.data.likeness import NEAR, fingerprint, nearest
from kerasdet.data.writers import write


def picture(seed, size=(100, 80)):
    """A photo with soft patches, unlike that of any other seed."""
    patches = np.random.default_rng(seed).integers(0, 256, (6, 7, 3), np.uint8)
    return Image.fromarray(patches).resize(size, Image.Resampling.BICUBIC)


# === Likeness ===


@pytest.mark.parametrize(
    "alter",
    [
        lambda image: image.resize((50, 40)),
        lambda image: image.resize((333, 222), Image.Resampling.BICUBIC),
        lambda image: image.point(lambda value: min(255, int(value * 1.2 + 5))),
        lambda image: image.crop((1, 1, 99, 79)),
        lambda image: image.convert("L").convert("RGB"),
    ],
)
def test_the_same_photo_altered_is_near(alter):
    for seed in range(5):
        image = picture(seed)
        assert (fingerprint(np.asarray(image)) != fingerprint(np.asarray(alter(image)))).sum() <= NEAR


def test_rising_and_falling_brightness_by_hand():
    rising = np.repeat(np.arange(170, dtype=np.uint8)[None, :, None], 160, 0).repeat(3, 2)
    assert fingerprint(rising).all() and not fingerprint(rising[:, ::-1]).any()
    half = np.concatenate([rising[:80], rising[80:, ::-1]])
    assert fingerprint(half).reshape(16, 16).sum(1).tolist() == [16] * 8 + [0] * 8


def test_the_nearest_as_counted_bit_by_bit(monkeypatch):
    rng = np.random.default_rng(0)
    prints, others = rng.random((13, 256)) < 0.5, rng.random((9, 256)) < 0.5
    table = (prints[:, None] != others[None]).sum(-1)
    assert 128 - 40 < table.min() <= table.max() < 128 + 40
    for block in (4, 4096):  # the table in pieces or whole
        monkeypatch.setattr("kerasdet.data.likeness._BLOCK", block)
        found, bits = nearest(prints, others)
        np.testing.assert_array_equal(found, table.argmin(1))
        np.testing.assert_array_equal(bits, table.min(1))


# === One fault of each kind ===


class Planted:
    """A COCO set of two splits, to which photos with boxes are added."""

    def __init__(self, folder):
        self.folder = folder
        (folder / "images").mkdir(parents=True)
        self.images = {"train": [], "val": []}
        self.annotations = {"train": [], "val": []}

    def add(self, split, name, *boxes, size=(100, 80), image=None):
        number = len(self.images[split]) + 1
        if image is None:
            image = picture(name)
        image.save(self.folder / "images" / f"{split}_{name}.png")
        entry = {"id": number, "file_name": f"{split}_{name}.png", "width": size[0], "height": size[1]}
        self.images[split].append(entry)
        for label, bbox in boxes:
            self.annotations[split].append({"id": 1, "image_id": number, "category_id": label, "bbox": bbox})

    def save(self):
        names = ("dog", "cat", "owl")
        categories = [{"id": number, "name": name} for number, name in enumerate(names, 1)]
        for split in self.images:
            document = {"images": self.images[split], "annotations": self.annotations[split]}
            text = json.dumps(document | {"categories": categories})
            (self.folder / f"instances_{split}.json").write_text(text)
        return self.folder


DOG, CAT, OWL = 1, 2, 3
NAN = float("nan")


@pytest.fixture
def sound(tmp_path):
    """Much that is unusual and right."""
    planted = Planted(tmp_path / "set")
    planted.add("train", 1, (DOG, [10, 10, 30, 30]), (CAT, [10, 10, 30, 30]))  # one place, two classes
    planted.add("train", 2, (DOG, [10, 10, 30, 30]), (DOG, [13, 10, 30, 30]))  # IoU 27 / 33
    planted.add("train", 3, (OWL, [-5, 60, 50, 50]))  # reaches over the edge
    planted.add("train", 4)
    planted.add("train", 5, image=picture(4))  # the same photo, in the same split
    planted.add("val", 6, (CAT, [1, 1, 98, 78]))
    planted.add("val", 7, (OWL, [5, 5, 1, 1]))
    return planted


def test_a_sound_set_has_no_faults(sound):
    report = examine(sound.save())
    assert report.faults == [] and report.photos == {"train": 5, "val": 2}
    for split in ("train", "val"):
        for old, new in zip(load(sound.folder, split), report.sets[split], strict=True):
            np.testing.assert_array_equal(old.boxes, new.boxes)
    assert count_objects(report.sets) == {
        "dog": {"train": (3, 2), "val": (0, 0)},
        "cat": {"train": (1, 1), "val": (1, 1)},
        "owl": {"train": (1, 1), "val": (1, 1)},
    }


def test_one_fault_of_each_kind_and_nothing_else(sound, tmp_path):
    sound.add("train", 10, (DOG, [1, 1, 20, 20]))
    sound.add("train", 11, (DOG, [1, 1, 20, 20]))
    sound.add("train", 12, (DOG, [5, 5, 20, 20]), size=(50, 40))
    sound.add(
        "train", 13, (CAT, [5, 5, 0, 20]), (DOG, [5, 5, 20, 20]), (CAT, [120, 5, 20, 20]),
        (CAT, [NAN, 5, 20, 20]), (CAT, [5, 5, 20, -1]),
    )
    sound.add("val", 14, (DOG, [5, 5, 40, 40]), (CAT, [50, 5, 30, 30]), (DOG, [6, 6, 40, 40]))
    sound.add("train", 15, (DOG, [5, 5, 20, 20]), size=(60, 50), image=picture(6).resize((60, 50)))
    for row in sound.annotations["train"]:
        row["category_id"] = min(row["category_id"], CAT)  # no owl any more
    folder = sound.save()
    (folder / "images" / "train_10.png").unlink()
    whole = (folder / "images" / "train_11.png").read_bytes()
    (folder / "images" / "train_11.png").write_bytes(whole[: len(whole) // 2])

    report = examine(folder)
    found = [(fault.kind, fault.split, fault.photo) for fault in report.faults]
    assert found == [
        ("missing photo", "train", "train_10.png"),
        ("broken photo", "train", "train_11.png"),
        ("wrong size", "train", "train_12.png"),
        *[("bad box", "train", "train_13.png")] * 4,
        ("duplicate box", "val", "val_14.png"),
        ("near-duplicate", "train", "train_15.png"),
        ("absent class", "train", ""),
    ]
    assert {kind for kind, _, _ in found} | {"repeated photo"} == set(KINDS)
    said = [fault.what for fault in report.faults]
    for text, part in zip(
        said,
        (
            "photo 'train_10.png' is not there", "train_11.png", "written as 50 x 40, is 100 x 80",
            "box 0 is [5.0, 5.0, 5.0, 25.0] as xyxy (no area: width 0, height 20)",
            "box 2 is [120.0, 5.0, 140.0, 25.0] as xyxy (outside of the photo, which is 100 x 80)",
            "box 3 is [nan, 5.0, nan, 25.0] as xyxy (not finite numbers)", "(no area: width 20, height -1)",
            "box 2 is [6.0, 6.0, 46.0, 46.0] as xyxy (the same dog as box 0)",
            "shows the same as val_6.png in val (", "owl: 1 in val, none in train",
        ),
        strict=True,
    ):
        assert part in text

    write(report.sets, tmp_path / "clean", "coco")
    again = examine(tmp_path / "clean")
    # Photos of a class have to be found by the user.
    assert [fault.kind for fault in again.faults] == ["absent class"]
    assert again.photos == {"train": 6, "val": 3}
    train = {sample.path[-6:]: sample for sample in again.sets["train"]}
    assert "12.png" not in train
    np.testing.assert_array_equal(train["13.png"].boxes, [[5, 5, 25, 25]])
    np.testing.assert_array_equal(again.sets["val"][2].boxes, [[5, 5, 45, 45], [50, 5, 80, 35]])


def test_of_near_duplicates_test_stays_then_val(tmp_path):
    boxes = "0 .5 .5 .2 .2\n0 .5 .5 .2 .2\n0 3 .5 .2 .2\n"
    for seed, split in enumerate(("train", "val", "test"), 1):
        (tmp_path / "labels" / split).mkdir(parents=True)
        (tmp_path / "images" / split).mkdir(parents=True)
        for name, which in (("own", seed), ("same", 0)):
            picture(which).save(tmp_path / "images" / split / f"{name}.jpg")
            (tmp_path / "labels" / split / f"{name}.txt").write_text(boxes)
    (tmp_path / "classes.txt").write_text("dog\n")
    report = examine(tmp_path)
    twins = {(fault.split, fault.photo) for fault in report.of("near-duplicate")}
    assert twins == {("train", "same.jpg"), ("val", "same.jpg")}
    # Fractions become pixels before boxes are looked at.
    assert len(report.of("duplicate box")) == len(report.of("bad box")) == 6
    for split, photos in (("train", 1), ("val", 1), ("test", 2)):
        assert len(report.sets[split]) == photos
        np.testing.assert_allclose(report.sets[split][0].boxes, [[40, 32, 60, 48]], rtol=1e-6)


def test_heads_go_with_the_boxes_they_belong_to(tmp_path):
    picture(1).save(tmp_path / "a.jpg")
    people = [
        {"tag": "person", "fbox": [200, 5, 20, 60], "hbox": [205, 5, 8, 9]},
        {"tag": "person", "fbox": [40, 5, 20, 60], "hbox": [45, 5, 8, 9]},
    ]
    (tmp_path / "x.odgt").write_text(json.dumps({"ID": "a", "gtboxes": people}))
    report = examine(tmp_path)
    (sample,) = report.sets["x"]
    np.testing.assert_array_equal(sample.boxes, [[40, 5, 60, 65]])
    np.testing.assert_array_equal(sample.parts, [[[45, 5, 53, 14]]])


def test_outlines_go_with_the_boxes_they_belong_to(tmp_path):
    planted = Planted(tmp_path / "set")
    planted.add("train", 1, (DOG, [5, 5, 0, 9]), (DOG, [10, 10, 20, 20]))
    for row, corner in zip(planted.annotations["train"], (5, 10), strict=True):
        row["segmentation"] = [[corner, corner, corner + 9, corner, corner, corner + 9]]
    planted.add("val", 2, (DOG, [10, 10, 20, 20]))
    (sample,) = examine(planted.save()).sets["train"]
    np.testing.assert_array_equal(sample.masks[0][0], [[10, 10], [19, 10], [10, 19]])
    assert len(sample.masks) == len(sample.boxes) == 1


def test_a_split_with_nothing_left(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"not a photo")
    (tmp_path / "boxes.csv").write_text("a.jpg,1,2,30,40,dog\n")
    report = examine(tmp_path)
    assert report.sets == {} and [fault.kind for fault in report.faults] == ["broken photo"]
    with pytest.raises(ValueError, match="no set"):
        write(report.sets, tmp_path / "clean", "csv")


def test_a_split_of_other_splits_is_no_copy_of_them(sound, tmp_path):
    """PASCAL VOC's lists: trainval is train and val together."""
    sets = {split: load(sound.save(), split) for split in ("train", "val")}
    write(sets, tmp_path / "voc", "voc")
    lists = tmp_path / "voc" / "ImageSets" / "Main"
    names = [(lists / f"{split}.txt").read_text() for split in ("train", "val")]
    (lists / "trainval.txt").write_text("".join(names))
    report = examine(tmp_path / "voc")
    assert report.faults == [] and report.photos == {"train": 5, "val": 2}
    assert report.joined == {"trainval": ("train", "val")} and list(report.sets) == ["train", "val"]
    assert len(load(tmp_path / "voc", "trainval")) == 7
    # With the other part gone, photos in both are told.
    (lists / "val.txt").unlink()
    assert len(examine(tmp_path / "voc").of("near-duplicate")) == 5
