"""A set of TensorFlow Datasets, prepared here, reads as any other."""

import io

import numpy as np
import pytest
from commands import run
from needed import needed
from PIL import Image

import kerasdet.data
from kerasdet.photo import read

tfds = needed("tensorflow_datasets")


def encoded(size, kind, value):
    file = io.BytesIO()
    Image.new("RGB", size, (value, 9, 9)).save(file, kind)
    return file.getvalue()


class TinyPets(tfds.core.GeneratorBasedBuilder):
    """Three photos to train on, one to validate, labelled as in TFDS' own "voc"."""

    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS = [tfds.core.BuilderConfig(name="2007", version=VERSION)]

    def _info(self):
        objects = {
            "bbox": tfds.features.BBoxFeature(),
            "is_difficult": np.bool_,
            "label": tfds.features.ClassLabel(names=["zebra", "cat"]),
            "facing": tfds.features.ClassLabel(names=["left", "right"]),
        }
        features = {
            "image": tfds.features.Image(), "image/filename": tfds.features.Text(),
            "objects": tfds.features.Sequence(objects),
        }
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples(3), "validation": self._generate_examples(1)}

    def _generate_examples(self, count):
        for number in range(count):
            thing = {"bbox": tfds.features.BBox(0.1, 0.2, 0.5, 0.6), "label": 1, "facing": 0}
            whole = {"bbox": tfds.features.BBox(0.0, 0.0, 1.0, 1.0), "label": 0, "facing": 1}
            objects = [thing | {"is_difficult": False}, whole | {"is_difficult": True}][: number + 1]
            data = encoded((100, 80), "PNG" if number == 2 else "JPEG", number)
            yield number, {
                "image": io.BytesIO(data), "image/filename": f"pet{number}",
                "objects": objects if number else [],
            }


class TinyFaces(TinyPets):
    """Boxes without classes, as in TFDS' own "wider_face"; some are invalid, one has no area."""

    def _info(self):
        features = {"image": tfds.features.Image(), "faces": tfds.features.Sequence(
            {"bbox": tfds.features.BBoxFeature(), "invalid": np.bool_}
        )}
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _generate_examples(self, count):
        rows = [((0.1, 0.2, 0.5, 0.6), False), ((0.0, 0.0, 1.0, 1.0), True), ((0.3, 0.5, 0.4, 0.5), False)]
        faces = [{"bbox": tfds.features.BBox(*box), "invalid": invalid} for box, invalid in rows[:count]]
        yield 0, {"image": io.BytesIO(encoded((100, 80), "JPEG", 0)), "faces": faces}


class TinyTexts(TinyPets):
    """No photos."""

    def _info(self):
        features = tfds.features.FeaturesDict({"text": tfds.features.Text()})
        return tfds.core.DatasetInfo(builder=self, features=features)

    def _generate_examples(self, count):
        yield 0, {"text": "cat"}


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    return tmp_path_factory.mktemp("tfds")


def test_boxes_in_pixels_with_classes_and_ignore_regions(data_dir):
    data = kerasdet.data.from_tfds("tiny_pets/2007", split="train", data_dir=data_dir)
    assert data.classes == ("zebra", "cat") and data.name == "tiny_pets/2007/train"
    by_id = {sample.image_id: sample for sample in data}  # TFDS shuffles
    assert set(by_id) == {"pet0", "pet1", "pet2"}
    assert by_id["pet0"].boxes.shape == (0, 4)
    for name in ("pet1", "pet2"):
        np.testing.assert_allclose(by_id[name].boxes, [[20, 8, 60, 40]], rtol=1e-6)
        np.testing.assert_allclose(by_id[name].ignore, [[0, 0, 100, 80]])
        assert by_id[name].labels.tolist() == [1]
    # The photos' own bytes, not encoded anew.
    for number, kind in ((1, "JPEG"), (2, "PNG")):
        with open(by_id[f"pet{number}"].path, "rb") as file:
            assert file.read() == encoded((100, 80), kind, number)
    assert read(data[0].path).shape == (80, 100, 3)


def test_splits_slices_and_photos_that_are_there(data_dir):
    load = kerasdet.data.from_tfds
    assert len(load("tiny_pets/2007", "val", data_dir)) == 1
    assert len(load("tiny_pets/2007", "train[1:]", data_dir)) == 2
    both = load("tiny_pets/2007", "train+validation", data_dir)
    assert len(both) == 4
    (path, other) = (both[0].path, both[1].path)
    with open(other, "rb") as file:
        before = file.read()
    with open(other, "wb") as file:
        file.write(before[:50])
    again = load("tiny_pets/2007", "train+validation", data_dir)
    assert [sample.path for sample in again] == [sample.path for sample in both]
    assert again[0].path == path and open(other, "rb").read() == before
    with pytest.raises(ValueError, match="tiny_pets/2007: there is no split 'trian'. Did you mean 'train'?"):
        load("tiny_pets/2007", "trian", data_dir)


def test_two_slices_of_a_split_keep_their_photos_apart(data_dir):
    load = kerasdet.data.from_tfds
    first = load("tiny_pets/2007", "train[:2]", data_dir)
    before = [read(sample.path) for sample in first]
    second = load("tiny_pets/2007", "train[2:]", data_dir)
    assert not {sample.path for sample in first} & {sample.path for sample in second}
    for sample, pixels in zip(first, before, strict=True):
        np.testing.assert_array_equal(read(sample.path), pixels)


def test_objects_without_classes(data_dir):
    load = kerasdet.data.from_tfds
    with pytest.raises(ValueError, match=r"have no classes; say what they are, such as classes=\['face'\]"):
        load("tiny_faces/2007", data_dir=data_dir)
    with pytest.raises(ValueError, match=r"image '000000.jpg' box 1 is .* \(no area"):
        load("tiny_faces/2007", data_dir=data_dir, classes=["face"])
    with pytest.warns(UserWarning, match="dropped 1 bad box of 2"):
        data = load("tiny_faces/2007", data_dir=data_dir, classes=["face"], on_bad_box="drop")
    np.testing.assert_allclose(data[0].boxes, [[20, 8, 60, 40]], rtol=1e-6)
    assert len(data[0].ignore) == 1 and data.classes == ("face",)


def test_a_set_prepared_in_another_format(data_dir, monkeypatch):
    def refuse(self, *args, **kwargs):
        raise NotImplementedError

    monkeypatch.setattr(TinyPets, "as_data_source", refuse)
    with pytest.raises(ValueError, match="1.0.0: is prepared as array_record, but array_record is needed"):
        kerasdet.data.from_tfds("tiny_pets/2007", data_dir=data_dir)


def test_sets_that_are_not_there_or_hold_no_boxes(data_dir):
    with pytest.raises(ValueError, match="no TFDS set 'tiny_pts/2007'. Did you mean 'tiny_pets'?"):
        kerasdet.data.from_tfds("tiny_pts/2007", data_dir=data_dir)
    with pytest.raises(ValueError, match="tiny_texts/2007: holds no photos with boxes, but text"):
        kerasdet.data.from_tfds("tiny_texts/2007", data_dir=data_dir)


# === As a path ===


@pytest.fixture
def home(data_dir, monkeypatch):
    """Where TFDS looks when it is not told; read from TFDS_DATA_DIR when it is imported."""
    monkeypatch.setattr(tfds.core.constants, "DATA_DIR", str(data_dir))


def test_a_name_goes_where_a_path_goes(home):
    pets = "tfds:tiny_pets/2007"
    assert set(kerasdet.data.splits(pets)) == {"train", "val"}
    data = kerasdet.data.load(pets)
    assert len(data) == 3 and data.classes == ("zebra", "cat")
    assert len(kerasdet.data.load(pets, split="val")) == 1
    assert len(kerasdet.data.load(pets, split="train[1:]")) == 2
    with pytest.raises(ValueError, match="there is no split 'tset'"):
        kerasdet.data.load(pets, split="tset")
    faces = kerasdet.data.load("tfds:tiny_faces/2007", "val", classes=["face"])
    assert faces.classes == ("face",)
    with pytest.raises(ValueError, match="no TFDS set 'tiny_pts'. Did you mean 'tiny_pets'?"):
        kerasdet.data.splits("tfds:tiny_pts")


def test_a_set_is_converted_with_all_its_splits(home, tmp_path):
    output = run("data", "convert", "tfds:tiny_pets/2007", tmp_path / "coco", "--to", "coco")
    assert "TensorFlow Datasets to coco: 4 photos with 2 boxes in train, val" in output
    for split, count in (("train", 3), ("val", 1)):
        data = kerasdet.data.load(tmp_path / "coco", split)
        assert len(data) == count and data.classes == ("zebra", "cat")
    train = kerasdet.data.load(tmp_path / "coco", "train")
    # What is difficult.
    assert sorted(len(sample.ignore) for sample in train) == [0, 1, 1]
    boxes = [sample.boxes.tolist() for sample in train if len(sample.boxes)]
    np.testing.assert_allclose(boxes, [[[20, 8, 60, 40]]] * 2, rtol=1e-6)


def test_the_doctor_looks_at_a_set(home, tmp_path):
    output = run("data", "doctor", "tfds:tiny_faces/2007", "--write", tmp_path / "clean", code=2)
    assert "have no classes" in output
    output = run("data", "doctor", "tfds:tiny_pets/2007", "--write", tmp_path / "clean", code=1)
    assert "TensorFlow Datasets, 3 photos in train, 1 photos in val" in output
    # Its photos are all of one colour.
    assert "near-duplicate" in output
    assert len(kerasdet.data.load(tmp_path / "clean", "val")) == 1
