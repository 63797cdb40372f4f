"""YOLO and WIDER FACE: what their lines say, where their photos lie, and what can be wrong."""

import numpy as np
import pytest
from PIL import Image

import kerasdet.data


def photo(path, size=(100, 80)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (90, 120, 150)).save(path)


def text(path, *lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(line + "\n" for line in lines))


# === YOLO ===


@pytest.fixture
def yolo(tmp_path):
    """A set as Ultralytics lays it out: photos a and b to train on, c to validate."""
    for name in ("train/a.jpg", "train/b.jpg", "val/c.jpg"):
        photo(tmp_path / "images" / name)
    text(tmp_path / "labels" / "train" / "a.txt", "1 0.25 0.5 0.3 0.5", "0 0.9 0.875 0.2 0.25")
    text(tmp_path / "labels" / "val" / "c.txt", "0 0.5 0.5 1 1")
    text(tmp_path / "data.yaml", "train: images/train", "val: images/val", "names:", "  0: dog", "  1: cat")
    return tmp_path


def test_yolo_boxes_become_pixels_with_classes_in_their_order(yolo):
    train, val = kerasdet.data.load(yolo), kerasdet.data.load(yolo, "val")
    assert train.classes == val.classes == ("dog", "cat")
    first, empty = train
    np.testing.assert_allclose(first.boxes, [[10, 20, 40, 60], [80, 60, 100, 80]], rtol=1e-6)
    assert first.labels.tolist() == [1, 0] and first.image_id == "a.jpg"
    assert empty.boxes.shape == (0, 4) and empty.path.endswith("images/train/b.jpg")
    np.testing.assert_allclose(val[0].boxes, [[0, 0, 100, 80]])
    assert kerasdet.data.load(yolo / "data.yaml", "val")[0].path == val[0].path


def test_yolo_in_the_splits_folders_with_names_as_a_list(yolo, tmp_path):
    for split in ("train", "val"):
        for kind in ("images", "labels"):
            (tmp_path / split).mkdir(exist_ok=True)
            (yolo / kind / split).rename(tmp_path / split / kind)
        (tmp_path / split).rename(tmp_path / {"train": "train", "val": "valid"}[split])
    for kind in ("images", "labels"):
        (yolo / kind).rmdir()
    text(yolo / "data.yaml", "train: ../train/images", "names: [dog, cat]")
    assert kerasdet.data.splits(yolo) == ("train", "val")
    assert kerasdet.data.load(yolo)[0].labels.tolist() == [1, 0]
    assert kerasdet.data.load(yolo, "val")[0].path.endswith("valid/images/c.jpg")


@pytest.mark.parametrize("labels", ["labels", "."])
def test_yolo_without_splits_with_folders_inside_or_beside_the_photos(tmp_path, labels):
    images = "images" if labels == "labels" else "."
    photo(tmp_path / images / "a.jpg")
    photo(tmp_path / images / "inner" / "a.jpg", (50, 40))
    text(tmp_path / labels / "inner" / "a.txt", "0 .5 .5 .2 .2")
    text(tmp_path / labels / "a.txt", "0 .5 .5 .1 .1", "")
    text(tmp_path / "classes.txt", "dog", "cat")
    if labels == ".":
        text(tmp_path / "README.txt", "Made with care.")
    data = kerasdet.data.load(tmp_path)
    assert data.classes == ("dog", "cat") and [s.image_id for s in data] == ["a.jpg", "inner/a.jpg"]
    np.testing.assert_allclose(data[0].boxes, [[45, 36, 55, 44]])
    np.testing.assert_allclose(data[1].boxes, [[20, 16, 30, 24]])
    assert len(kerasdet.data.load(tmp_path / "classes.txt")) == 2


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("0 0.5 0.5 0.1", "a.txt, line 2: '0 0.5 0.5 0.1' is not a box"),
        ("0 0.5 0.5 0.1 x", "is not a box"),
        ("0 .1 .1 .2 .1 .2 .2", r"polygons and keypoints are not read"),
        ("2 0.5 0.5 0.1 0.1", "line 2: class 2 has no name; those that have one: 0 dog, 1 cat"),
        ("0.5 0.5 0.5 0.1 0.1", "class 0.5 has no name"),
        ("0 1.5 0.5 0.1 0.1", r"'a.jpg' box 1 is .* \(outside of the photo"),
        ("0 0.5 0.5 0 0.1", r"no area: width 0, height 8\)"),
        ("0 nan 0.5 0 0.1", "not finite"),
    ],
)
def test_yolo_lines_that_are_no_boxes(yolo, line, message):
    text(yolo / "labels" / "train" / "a.txt", "1 0.25 0.5 0.3 0.5", line)
    with pytest.raises(ValueError, match=message):
        kerasdet.data.load(yolo)


def test_hidden_files_and_folders_are_no_part_of_a_set(yolo):
    """What Jupyter and macOS leave."""
    photo(yolo / "images" / "train" / ".ipynb_checkpoints" / "a-checkpoint.jpg")
    for name in (".ipynb_checkpoints/a-checkpoint.txt", "._a.txt"):
        text(yolo / "labels" / "train" / name, "0 0.5 0.5 1 1")
    assert [sample.image_id for sample in kerasdet.data.load(yolo)] == ["a.jpg", "b.jpg"]


def test_linked_folders_are_gone_through(yolo, tmp_path):
    inside = tmp_path / "elsewhere"
    for kind in ("images", "labels"):
        (yolo / kind / "train").rename((inside / kind).parent.mkdir(exist_ok=True) or inside / kind)
        (yolo / kind / "train").mkdir()
        (yolo / kind / "train" / "cam1").symlink_to(inside / kind, target_is_directory=True)
    (inside / "images" / "round").symlink_to(inside / "images", target_is_directory=True)
    first, second = kerasdet.data.load(yolo)
    assert first.image_id == "cam1/a.jpg" and len(first.boxes) == 2 and second.image_id == "cam1/b.jpg"


@pytest.mark.parametrize("name", ["a.jpg.txt", "A.txt"])
def test_labels_by_the_photos_whole_name_or_in_other_letters(yolo, name):
    (yolo / "labels" / "train" / "a.txt").rename(yolo / "labels" / "train" / name)
    assert [len(sample.boxes) for sample in kerasdet.data.load(yolo)] == [2, 0]


def test_labels_of_another_photo_are_not_taken_for_letters(yolo):
    text(yolo / "labels" / "train" / "B.txt", "0 0.5 0.5 0.5 0.5")
    photo(yolo / "images" / "train" / "B.jpg")
    found = {sample.image_id: len(sample.boxes) for sample in kerasdet.data.load(yolo)}
    assert found == {"a.jpg": 2, "b.jpg": 0, "B.jpg": 1}


@pytest.mark.parametrize(
    "entry", ["../" * 200_000 + "images/train", "a" * 5000, "\\0", "[[images/train]]", "{a: b}"],
    ids=["up", "long", "null", "lists", "mapping"],
)
def test_what_a_yaml_says_of_folders_may_be_anything(yolo, entry):
    entry = entry if entry[0] in "[{" else f'"{entry}"'
    text(yolo / "data.yaml", f"train: {entry}", "val: images/val", "names: [dog, cat]")
    assert kerasdet.data.splits(yolo) == ("train", "val")


def test_labels_without_a_listed_photo_are_read_where_the_disk_finds_it(yolo, monkeypatch):
    monkeypatch.setattr("kerasdet.photo.within", lambda folder: [])
    assert [len(sample.boxes) for sample in kerasdet.data.load(yolo)] == [2]


def test_a_yaml_says_which_folders_are_the_splits(yolo):
    for kind in ("images", "labels"):
        for old, new in (("train", "day"), ("val", "night")):
            (yolo / kind / old).rename(yolo / kind / new)
    text(yolo / "data.yaml", "train: images/day", "val: images/night", "names: [dog, cat]")
    assert sorted(kerasdet.data.splits(yolo)) == ["train", "val"]
    assert kerasdet.data.load(yolo, "val")[0].path.endswith("night/c.jpg")
    text(yolo / "args.yaml", "epochs: 3")
    (yolo / "data.yaml").rename(yolo / "pets.yaml")
    assert sorted(kerasdet.data.splits(yolo)) == ["train", "val"], "settings come first by name"
    # The same photos for both, as in sets to try things out with: neither name is taken from the other.
    text(yolo / "data.yaml", "train: images/day", "val: images/day", "names: [dog, cat]")
    assert sorted(kerasdet.data.splits(yolo)) == ["day", "night"]


def test_a_yaml_says_which_lists_of_photos_are_the_splits(tmp_path):
    for name in "abc":
        photo(tmp_path / "images" / f"{name}.jpg")
        text(tmp_path / "labels" / f"{name}.txt", "0 0.5 0.5 0.5 0.5")
    text(tmp_path / "data.yaml", "train: train.txt", "val: lists/val.txt", "test:", "names: [dog]")
    text(tmp_path / "train.txt", "./images/a.jpg", "/home/someone/set/images/b.jpg")
    text(tmp_path / "lists" / "val.txt", "images/c.jpg")
    assert kerasdet.data.splits(tmp_path) == ("train", "val")
    assert [sample.image_id for sample in kerasdet.data.load(tmp_path)] == ["a.jpg", "b.jpg"]
    (val,) = kerasdet.data.load(tmp_path / "data.yaml", "val")
    assert val.image_id == "c.jpg" and len(val.boxes) == 1
    text(tmp_path / "train.txt", "./images/a.jpg", "", "../d.jpg")
    with pytest.raises(FileNotFoundError, match=r"train.txt, line 3: photo '../d.jpg' is not in .*images"):
        kerasdet.data.splits(tmp_path)


def test_yolo_in_pixels_is_recognised(yolo):
    text(yolo / "labels" / "train" / "a.txt", "1 25 40 30 40", "0 90 70 20 20")
    with pytest.raises(ValueError, match="all 2 boxes are larger than their photos, such as width 30"):
        kerasdet.data.load(yolo)


def test_yolo_without_names_photos_or_labels(yolo):
    (yolo / "images" / "train" / "a.jpg").unlink()
    with pytest.raises(FileNotFoundError, match="train/a.txt: photo 'a' is not there"):
        kerasdet.data.load(yolo)
    (yolo / "data.yaml").write_text("names: 3\n")
    with pytest.raises(ValueError, match="data.yaml: names is 3; write a list"):
        kerasdet.data.load(yolo)
    (yolo / "data.yaml").write_text("names: [\n")
    with pytest.raises(ValueError, match="data.yaml: not valid yaml"):
        kerasdet.data.load(yolo)
    (yolo / "data.yaml").write_text("train: images/train\n")
    with pytest.raises(ValueError, match="the classes have no names; write them into .*classes.txt"):
        kerasdet.data.load(yolo)
    with pytest.raises(ValueError, match="data.yaml: there are no names of classes"):
        kerasdet.data.load(yolo / "data.yaml")
    (yolo / "images").rename(yolo / "pictures")
    with pytest.raises(FileNotFoundError, match="its photos are not there; they should be in .*images/train"):
        kerasdet.data.load(yolo)
    (yolo / "labels").rename(yolo / "texts")
    with pytest.raises(ValueError, match="no labels of photos beside it; there should be .*labels"):
        kerasdet.data.load(yolo / "data.yaml")


def test_texts_beside_another_format_are_not_taken_for_labels(tmp_path):
    photo(tmp_path / "a.jpg")
    text(tmp_path / "classes.txt", "dog")
    text(tmp_path / "README.txt", "Made with care.")
    text(tmp_path / "boxes.csv", "a.jpg,1,2,30,40,dog")
    assert len(kerasdet.data.load(tmp_path)[0].boxes) == 1


# === WIDER FACE ===

LINES = (
    "0--Parade/a one.jpg", "4",
    "10 20 30 40 0 0 0 0 0 0 ", "50 50 12 9 2 0 0 0 1 0", "60 10 20 20 2 0 0 1 0 0", "1 1 10 10",
    "0--Parade/b.jpg", "0", "0 0 0 0 0 0 0 0 0 0 ",
    "0--Parade/c.jpg", "0",
    "0--Parade/d.jpg", "1", "90 5 30 30 0 0 0 0 0 0",
)


@pytest.fixture
def wider(tmp_path):
    for name in ("a one", "b", "c", "d"):
        photo(tmp_path / "WIDER_train" / "images" / "0--Parade" / f"{name}.jpg")
    text(tmp_path / "wider_face_split" / "wider_face_train_bbx_gt.txt", *LINES)
    return tmp_path


def test_wider_face_with_invalid_and_tiny_faces_as_ignore_regions(wider):
    for path in (wider, wider / "wider_face_split", wider / "wider_face_split/wider_face_train_bbx_gt.txt"):
        data = kerasdet.data.load(path)
        assert data.classes == ("face",) and [len(s.boxes) for s in data] == [2, 0, 0, 1]
    first, last = data[0], data[3]
    np.testing.assert_array_equal(first.boxes, [[10, 20, 40, 60], [1, 1, 11, 11]])
    np.testing.assert_array_equal(first.ignore, [[50, 50, 62, 59], [60, 10, 80, 30]])
    np.testing.assert_array_equal(last.boxes, [[90, 5, 100, 35]])
    assert first.image_id == "0--Parade/a one.jpg"
    assert kerasdet.data.splits(wider) == ("train",)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["0--Parade/b.jpg"], "line 2: the number of faces on '0--Parade/b.jpg' is missing"),
        (["0--Parade/b.jpg", "1 2 3 4"], "line 2: the number of faces"),
        (["0--Parade/b.jpg", "2", "1 2 30 40"], "line 4: '' is not a face of '0--Parade/b.jpg'"),
        (["0--Parade/b.jpg", "1", "0--Parade/c.jpg", "0"], "line 3: '0--Parade/c.jpg' is not a face"),
        (["0--Parade/b.jpg", "1", "1 2 x 4"], "line 3: .* write x y w h"),
    ],
)
def test_wider_face_lines_that_are_missing(wider, lines, message):
    text(wider / "wider_face_split" / "wider_face_train_bbx_gt.txt", *lines)
    with pytest.raises(ValueError, match=message):
        kerasdet.data.load(wider)


def test_a_txt_that_is_neither(tmp_path):
    text(tmp_path / "notes.txt", "cats are nice")
    with pytest.raises(ValueError, match="notes.txt: not an annotation file; .* YOLO txt"):
        kerasdet.data.load(tmp_path / "notes.txt")
