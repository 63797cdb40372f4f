"""What is written reads back the same, up to what the format has a place for."""

import dataclasses
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kerasdet.data import Dataset, Sample, load
from kerasdet.data.readers import read_all
from kerasdet.data.writers import HOLDS, write

CLASSES = ("zebra", "cat", "owl")


@pytest.fixture
def sets(tmp_path):
    """Two splits: fractions of pixels, an ignore region, a head unlabelled, a class unused, empty photos."""
    for name in ("one/a b.jpg", "two/a b.jpg", "two/c.png", "two/d.jpg"):
        (tmp_path / "from" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (100, 80), (len(name), 90, 120)).save(tmp_path / "from" / name)

    def some(name, boxes=(), labels=(), ignore=(), heads=()):
        array = np.array([head or [0] * 4 for head in heads], np.float32).reshape(-1, 1, 4)
        return Sample(
            str(tmp_path / "from" / name), np.array(boxes, np.float32).reshape(-1, 4),
            np.array(labels, np.int32), np.array(ignore, np.float32).reshape(-1, 4), array,
            np.array([[head is not None] for head in heads], np.float32).reshape(-1, 1),
            width=100, height=80, image_id=name,
        )

    first = some(
        "one/a b.jpg", [[10.25, 20, 40, 60.5], [0, 0, 100, 80]], [1, 0], [[50, 1, 99, 79], [2, 2, 5, 5]],
        [[12, 22, 20, 30.5], None],
    )
    second = some("two/a b.jpg", [[99.6, 79.7, 100, 80]], [1], heads=[None])
    train = Dataset([first, second, some("two/c.png")], CLASSES, ("head",))
    return {"train": train, "val": Dataset([some("two/d.jpg")], CLASSES, ("head",))}


def written(sets, folder, to, **options):
    """What is read back, and what the warnings said."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        write(sets, folder, to, **options)
    reading = read_all(folder)
    return {split: reading.dataset(split) for split in reading.sources}, [str(w.message) for w in caught]


@pytest.mark.parametrize("to", [to for to in HOLDS if to != "wider"])
def test_round_trips(sets, tmp_path, to):
    back, said = written(sets, tmp_path / "new" / "out", to)
    assert list(back) == ["train", "val"]
    used = CLASSES if to in ("coco", "yolo", "voc") else ("cat", "zebra")
    assert back["train"].classes == back["val"].classes
    assert set(back["train"].classes) == set(used)
    assert back["train"].parts == (("head",) if to == "odgt" else ())
    if to in ("coco", "yolo"):
        assert back["train"].classes == CLASSES
    for split in sets:
        assert len(back[split]) == len(sets[split])
        for old, new in zip(sets[split], back[split], strict=True):
            assert open(old.path, "rb").read() == open(new.path, "rb").read()
            assert (new.width, new.height) == (100, 80)
            names = [back[split].classes[label] for label in new.labels]
            assert names == [CLASSES[label] for label in old.labels]
            boxes, ignore = old.boxes, old.ignore
            if to == "voc" and len(boxes):  # whole pixels, at least one
                boxes = {2: [[10, 20, 40, 60], [0, 0, 100, 80]], 1: [[99, 79, 100, 80]]}[len(boxes)]
            np.testing.assert_allclose(new.boxes, np.reshape(boxes, (-1, 4)), atol=1e-5)
            if to in ("yolo", "csv"):
                assert not len(new.ignore)
            else:
                np.testing.assert_array_equal(new.ignore, ignore)
            if to == "odgt" and len(boxes):
                np.testing.assert_array_equal(new.parts, old.parts)
                np.testing.assert_array_equal(new.part_weights, old.part_weights)
    expected = {
        "coco": ["coco: boxes of the part 'head' left out: 1"],
        "voc": ["part 'head' left out: 1", "boxes rounded to whole pixels: 2 of 5"],
        "yolo": ["ignore regions left out: 2; what is there counts as background", "part 'head' left out: 1"],
        "csv": ["ignore regions left out: 2", "part 'head' left out: 1", "since nothing is labelled so: owl"],
        "odgt": ["classes left out, since nothing is labelled so: owl"],
    }[to]
    assert len(said) == len(expected) and all(a in b for a, b in zip(expected, said, strict=True)), said


def test_round_trip_of_faces(sets, tmp_path):
    message = "WIDER FACE has faces and no other class, and the set has zebra, cat, owl"
    with pytest.raises(ValueError, match=message):
        write(sets, tmp_path / "three", "wider")
    faces = {split: dataset.as_one_class("face") for split, dataset in sets.items()}
    back, said = written(faces, tmp_path / "out", "wider")
    assert list(back) == ["train", "val"] and back["train"].classes == ("face",)
    first, second, third = back["train"]
    np.testing.assert_array_equal(first.boxes, [[10, 20, 40, 60], [0, 0, 100, 80]])
    np.testing.assert_array_equal(first.ignore, [[50, 1, 99, 79], [2, 2, 5, 5]])
    # The reader takes faces under 10 px for ignore regions, which the writer says.
    assert not len(second.boxes) and second.ignore.tolist() == [[99, 79, 100, 80]]
    assert not len(third.boxes) and not len(third.ignore) and not len(back["val"][0].boxes)
    assert [open(sample.path, "rb").read() for sample in back["train"]] == [
        open(sample.path, "rb").read() for sample in faces["train"]
    ]
    assert said == [
        "wider: boxes of the part 'head' left out: 1", "wider: boxes rounded to whole pixels: 2 of 5",
        "wider: faces under 10 px, which are read as ignore regions: 1",
    ]


def test_faces_of_any_splits(sets, tmp_path):
    faces = {split: sets[own].as_one_class("face") for split, own in (("day", "train"), ("night", "val"))}
    back, _ = written(faces, tmp_path / "out", "wider")
    assert {split: len(data) for split, data in back.items()} == {"day": 3, "night": 1}
    assert Path(load(tmp_path / "out", split="night")[0].path).name == "d.jpg"


def test_sides_that_no_sample_says_are_the_photos_own(sets, tmp_path):
    unsaid = [dataclasses.replace(sample, width=0, height=0) for sample in sets["train"]]
    back, _ = written({"train": Dataset(unsaid, CLASSES, ("head",))}, tmp_path / "out", "yolo")
    for old, new in zip(unsaid, back["train"], strict=True):
        np.testing.assert_allclose(new.boxes, old.boxes, atol=1e-5)


def test_names_differ_by_more_than_capitals(sets, tmp_path):
    """To the disks of macOS and Windows a_b.jpg and A_B.jpg are one."""
    samples = list(sets["train"])
    place = tmp_path / "from" / "two" / "A B.JPG"
    (tmp_path / "from" / "two" / "a b.jpg").rename(place)
    samples[1] = dataclasses.replace(samples[1], path=str(place))
    back, _ = written({"train": Dataset(samples, CLASSES, ("head",))}, tmp_path / "out", "yolo")
    assert {Path(sample.path).name for sample in back["train"]} == {"a_b.jpg", "A_B_2.JPG", "c.png"}


def test_nothing_is_said_where_nothing_is_lost(shapes, tmp_path):
    plain = Dataset([dataclasses.replace(sample, masks=()) for sample in shapes], shapes.classes)
    for to in ("coco", "yolo", "csv", "odgt"):
        back, said = written({"shapes": plain}, tmp_path / to, to)
        # A set without splits is there to be trained on.
        assert said == [] and list(back) == ["train"] and back["train"].classes == shapes.classes
        for old, new in zip(shapes, back["train"], strict=True):
            np.testing.assert_allclose(old.boxes, new.boxes, atol=1e-4)


def test_outlines_go_to_coco_only(tmp_path):
    Image.new("RGB", (100, 80)).save(tmp_path / "a.png")
    boxes = np.array([[10, 10, 30, 40], [50, 10, 60, 20], [0, 0, 9, 9]], np.float32)
    triangle = np.array([[10, 10], [30, 10.5], [20, 40]], np.float32)
    masks = ((triangle, triangle + 1), (), (triangle / 5,))
    ignore = np.array([[70, 70, 80, 80]], np.float32)
    path, size = str(tmp_path / "a.png"), {"width": 100, "height": 80}
    outlined = Sample(path, boxes, np.array([0, 1, 0]), ignore, masks=masks, **size)
    sets = {"train": Dataset([outlined, Sample(path, boxes[:0], np.zeros(0, int), **size)], CLASSES)}
    back, said = written(sets, tmp_path / "coco", "coco")
    assert said == []
    for old, new in zip(masks, back["train"][0].masks, strict=True):
        for polygon, other in zip(old, new, strict=True):
            np.testing.assert_array_equal(polygon, other)
    _, said = written(sets, tmp_path / "csv", "csv")
    assert "csv: outlines of objects left out: 2" in said


@pytest.mark.filterwarnings("ignore:coco. boxes of the part")
def test_pycocotools_reads_what_coco_gets(sets, tmp_path):
    from pycocotools.coco import COCO

    write(sets, tmp_path / "out", "coco")
    truth = COCO(tmp_path / "out" / "annotations" / "instances_train.json")
    assert [truth.imgs[i]["file_name"] for i in sorted(truth.imgs)] == ["a_b.jpg", "a_b_2.jpg", "c.png"]
    regions = truth.loadAnns(truth.getAnnIds(iscrowd=True))
    assert sorted(region["category_id"] for region in regions) == [1, 1, 2, 2, 3, 3]


def test_links_in_the_place_of_copies(sets, tmp_path):
    back, _ = written(sets, tmp_path / "out", "coco", link=True)
    link = tmp_path / "out" / "images" / "train" / "a_b.jpg"
    assert link.is_symlink() and link.resolve() == (tmp_path / "from" / "one" / "a b.jpg").resolve()
    assert back["train"][0].path == str(link)


@pytest.mark.filterwarnings("ignore:coco. boxes of the part")
def test_nothing_is_overwritten_and_nothing_half_is_left(sets, tmp_path, monkeypatch):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="out exists and is not empty; give another folder"):
        write(sets, tmp_path / "out", "coco")
    (tmp_path / "from" / "two" / "d.jpg").unlink()
    before = sorted(tmp_path.iterdir())
    with pytest.raises(FileNotFoundError, match="d.jpg"):
        write(sets, tmp_path / "new", "coco")
    assert sorted(tmp_path.iterdir()) == before


def test_sets_and_formats_that_do_not_fit(sets, tmp_path):
    with pytest.raises(ValueError, match="no format 'cocoa'. Did you mean 'coco'?"):
        write(sets, tmp_path / "out", "cocoa")
    with pytest.raises(ValueError, match="the same classes in all"):
        write({"train": sets["train"], "val": sets["val"].as_one_class("cat")}, tmp_path / "out", "coco")
    with pytest.raises(ValueError, match="photos in each"):
        write({"train": sets["train"].subset([])}, tmp_path / "out", "coco")
    with pytest.raises(ValueError, match="class 'mask' as ignore regions"):
        write({"train": sets["train"].as_one_class("mask")}, tmp_path / "out", "odgt")
