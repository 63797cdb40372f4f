"""Every format reads to the same samples."""

import json
import os
import warnings

import numpy as np
import pytest
from annotations import annotation, coco, photo, voc
from PIL import Image

import kerasdet.data
from kerasdet.data.readers.source import PhotoFinder, Record, Source


def test_coco_outlines_are_polygons_or_run_lengths(tmp_path):
    polygon = [10, 10, 30, 10, 30, 50]
    runs = {"size": [80, 100], "counts": [80 * 60 + 20, 20, 80 * 40 - 40]}
    data = kerasdet.data.load(
        coco(
            tmp_path,
            [
                annotation([10, 10, 20, 40], id=1, segmentation=[polygon]),
                annotation([60, 20, 1, 20], id=2, segmentation=runs),
                annotation([50, 50, 20, 20], id=3),
                annotation([0, 0, 5, 5], id=4, image_id=2),
            ],
        )
    )
    first, second, third = data[0].masks
    np.testing.assert_array_equal(first, [np.reshape(polygon, (3, 2))])
    # One column of 20 pixels.
    (column,) = second
    assert [*column.min(0), *column.max(0)] == [60, 20, 61, 40]
    assert third == () and data[1].masks == ((),)
    assert data.select("cat")[0].masks == data[0].masks and data.select("dog")[0].masks == ()


def test_an_outline_that_cannot_be_read_is_named_and_its_box_stays(tmp_path):
    sound = [[1, 2, 3, 4, 5, 1]]
    odd = annotation([0, 0, 5, 5], id=9, segmentation=[[1, 2, 3, 4]])
    coco(tmp_path, [odd, annotation([0, 0, 5, 5], segmentation=sound)])
    with pytest.warns(UserWarning, match="1 objects keep .*annotation 9 .*fewer than 3.* Write poly"):
        data = kerasdet.data.load(tmp_path)
    assert data[0].boxes.tolist() == [[0, 0, 5, 5]] * 2
    assert data[0].masks[0] == () and len(data[0].masks[1]) == 1


def test_coco_boxes_become_xyxy_with_classes_in_id_order(tmp_path):
    data = kerasdet.data.load(
        coco(
            tmp_path,
            [
                annotation([10, 20, 30, 40], category_id=7),
                annotation([50, 50, 10, 10], category_id=3),
                annotation([0, 0, 20, 20], iscrowd=1),
                annotation([30, 30, 10, 10], ignore=1),
            ],
        )
    )
    assert data.classes == ("cat", "dog")  # ids 3 and 7
    assert [os.path.basename(sample.path) for sample in data] == ["a.jpg", "b.jpg"]
    first, empty = data
    np.testing.assert_array_equal(first.boxes, [[10, 20, 40, 60], [50, 50, 60, 60]])
    assert first.labels.tolist() == [1, 0]
    np.testing.assert_array_equal(first.ignore, [[0, 0, 20, 20], [30, 30, 40, 40]])
    assert (first.width, first.height, first.image_id) == (100, 80, 1)
    assert first.boxes.dtype == np.float32 and first.labels.dtype == np.int32
    assert empty.boxes.shape == (0, 4) and empty.labels.shape == (0,)
    assert empty.parts.shape == (0, 0, 4)


def test_coco_s_own_layout_of_folders(tmp_path):
    images = [{"id": 1, "file_name": "a.jpg"}]
    document = {"images": images, "annotations": [annotation([1, 2, 3, 4])]}
    document["categories"] = [{"id": 3, "name": "cat"}]
    (tmp_path / "annotations").mkdir()
    for split, size in (("train2017", (100, 80)), ("val2017", (60, 40))):
        photo(tmp_path / split / "a.jpg", size)
        text = json.dumps(document)
        (tmp_path / "annotations" / f"instances_{split}.json").write_text(text)
        (tmp_path / "annotations" / f"captions_{split}.json").write_text(text)
    assert kerasdet.data.load(tmp_path)[0].width == 100
    assert kerasdet.data.load(tmp_path, split="val")[0].width == 60
    assert kerasdet.data.load(tmp_path, split="val2017")[0].width == 60
    file = tmp_path / "annotations" / "instances_val2017.json"
    assert kerasdet.data.load(file)[0].width == 60


def test_a_coco_file_of_another_name_is_a_split_beside_instances(tmp_path):
    coco(tmp_path, [annotation([1, 2, 3, 4])], "train")
    for name in ("val", "captions_val", "person_keypoints_train"):
        (tmp_path / f"{name}.json").write_text((tmp_path / "instances_train.json").read_text())
    assert kerasdet.data.splits(tmp_path) == ("train", "val")


def test_a_category_id_of_two_names_is_refused(tmp_path):
    both = [{"id": 3, "name": name} for name in ("cat", "dog")]
    coco(tmp_path, [annotation([1, 2, 3, 4])], categories=both)
    with pytest.raises(ValueError, match="category id 3 is both 'cat' and 'dog'; make it unique"):
        kerasdet.data.load(tmp_path)
    coco(tmp_path, [annotation([1, 2, 3, 4])], categories=[{"id": 3, "name": "cat"}] * 2)
    assert kerasdet.data.load(tmp_path).classes == ("cat",)


def test_odgt_reads_bodies_heads_and_ignore_regions(tmp_path):
    photo(tmp_path / "images" / "one.jpg")
    photo(tmp_path / "images" / "two.jpg")
    people = [
        {"tag": "person", "fbox": [10, -5, 20, 60], "hbox": [15, -5, 8, 9]},
        {
            "tag": "person",
            "fbox": [40, 5, 20, 60],
            "hbox": [1, 1, 2, 2],
            "head_attr": {"ignore": 1},
        },
        {"tag": "person", "fbox": [70, 5, 10, 30], "extra": {"ignore": 1}},
        {"tag": "mask", "fbox": [90, 5, 30, 30]},
    ]
    lines = [{"ID": "one", "gtboxes": people}, {"ID": "two", "gtboxes": []}]
    (tmp_path / "annotation_train.odgt").write_text("\n".join(map(json.dumps, lines)))
    data = kerasdet.data.load(tmp_path)
    assert data.classes == ("person",) and data.parts == ("head",)
    first, empty = data
    # Cut at the edges of the photo, whose size only its header says.
    np.testing.assert_array_equal(first.boxes, [[10, 0, 30, 55], [40, 5, 60, 65]])
    np.testing.assert_array_equal(first.parts, [[[15, 0, 23, 4]], [[0, 0, 0, 0]]])
    np.testing.assert_array_equal(first.part_weights, [[1], [0]])
    np.testing.assert_array_equal(first.ignore, [[70, 5, 80, 35], [90, 5, 100, 35]])
    assert (first.width, first.height) == (100, 80)
    assert empty.boxes.shape == (0, 4)
    assert empty.parts.shape == (0, 1, 4) and empty.part_weights.shape == (0, 1)


def test_voc_beside_the_photos(tmp_path):
    for split, name in (("train", "dog"), ("test", "cat")):
        photo(tmp_path / split / "a.jpg")
        photo(tmp_path / split / "b.jpg")
        voc(tmp_path / split / "a.xml", [(name, (1, 2, 30, 40), 0), (name, (5, 5, 9, 9), 1)])
        voc(tmp_path / split / "b.xml", [], filename="renamed-later.jpg", size=False)
    train, test = kerasdet.data.load(tmp_path), kerasdet.data.load(tmp_path, split="test")
    # One list of classes for both, although each split names only one.
    assert train.classes == test.classes == ("cat", "dog")
    assert train[0].labels.tolist() == [1] and test[0].labels.tolist() == [0]
    np.testing.assert_array_equal(train[0].boxes, [[1, 2, 30, 40]])
    np.testing.assert_array_equal(train[0].ignore, [[5, 5, 9, 9]])
    assert len(train[1].boxes) == 0 and os.path.basename(train[1].path) == "b.jpg"
    assert f"{os.sep}test{os.sep}" in test[0].path


def test_photos_without_an_xml_are_named(tmp_path):
    """A list says what a set is; where there is none, photos without objects may have been meant."""
    for name in ("a", "b", "empty"):
        photo(tmp_path / f"{name}.jpg")
    for name in ("a", "b"):
        voc(tmp_path / f"{name}.xml", [("dog", (1, 2, 30, 40), 0)], f"{name}.jpg")
    with pytest.warns(UserWarning, match="1 photos have no xml, such as empty.jpg, and are left out"):
        assert len(kerasdet.data.load(tmp_path)) == 2
    for name in (".ipynb_checkpoints/a-checkpoint.jpg", "._b.jpg"):  # which nobody means
        photo(tmp_path / name)
    (tmp_path / "._a.xml").write_bytes(b"\0\5\26\7")
    voc(tmp_path / "empty.xml", [], "empty.jpg")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(kerasdet.data.load(tmp_path)) == 3


def test_photos_without_an_xml_in_a_splits_folder_are_named(tmp_path):
    for split in ("train", "val"):
        for name in ("a", "b"):
            photo(tmp_path / split / f"{split}_{name}.jpg")
        voc(tmp_path / split / f"{split}_a.xml", [("dog", (1, 2, 30, 40), 0)], f"{split}_a.jpg")
    with pytest.warns(UserWarning, match="train: 1 photos have no xml, such as train_b.jpg"):
        kerasdet.data.load(tmp_path, "train")


def test_voc_devkit_with_lists_of_photos(tmp_path):
    for name in ("a", "b", "c"):
        photo(tmp_path / "JPEGImages" / f"{name}.jpg")
        voc(tmp_path / "Annotations" / f"{name}.xml", [("dog", (1, 2, 30, 40), 0)], f"{name}.jpg")
    lists = tmp_path / "ImageSets" / "Main"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("a\nc\n")
    (lists / "val.txt").write_text("b\n")
    (lists / "dog_val.txt").write_text("b 1\n")
    assert [s.image_id for s in kerasdet.data.load(tmp_path)] == ["a", "c"]
    assert [s.image_id for s in kerasdet.data.load(tmp_path, split="val")] == ["b"]
    (lists / "val.txt").write_text("b\nd\n")
    with pytest.raises(FileNotFoundError, match="d.xml.*listed in ImageSets"):
        kerasdet.data.load(tmp_path, split="val")


def test_voc_lists_of_names_that_end_in_a_number(tmp_path):
    """A line cat 1 means the photo of that name where there is one, else cat, with the class in it."""
    for name in ("cat", "cat 1", "dog"):
        photo(tmp_path / "JPEGImages" / f"{name}.jpg")
        voc(tmp_path / "Annotations" / f"{name}.xml", [("pet", (1, 2, 30, 40), 0)], f"{name}.jpg")
    lists = tmp_path / "ImageSets" / "Main"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("cat\ncat 1\ndog 1\n")
    names = ["cat.jpg", "cat 1.jpg", "dog.jpg"]
    assert [os.path.basename(s.path) for s in kerasdet.data.load(tmp_path)] == names
    (lists / "train.txt").write_text("9" * 5000 + "\n")  # longer than names of files can be
    with pytest.raises((FileNotFoundError, ValueError), match="999"):
        kerasdet.data.load(tmp_path)


@pytest.mark.parametrize(
    "header",
    [
        "image,xmin,ymin,xmax,ymax,label\n",
        "\ufefffilename,X1,Y1,X2,Y2,class\n",  # as spreadsheets write it
        "",
    ],
)
def test_csv_with_several_rows_a_photo_and_an_empty_one(tmp_path, header):
    photo(tmp_path / "images" / "a.jpg")
    photo(tmp_path / "images" / "b.jpg")
    rows = "a.jpg,1,2,30,40,dog\nb.jpg,,,,,\na.jpg,5,6,7.5,8,cat\n"
    (tmp_path / "boxes.csv").write_text(header + rows, encoding="utf-8")
    data = kerasdet.data.load(tmp_path)
    assert data.classes == ("cat", "dog") and len(data) == 2
    np.testing.assert_array_equal(data[0].boxes, [[1, 2, 30, 40], [5, 6, 7.5, 8]])
    assert data[0].labels.tolist() == [1, 0]
    assert data[1].boxes.shape == (0, 4)


@pytest.mark.parametrize("between", [";", "\t"])
@pytest.mark.parametrize("header", [True, False])
def test_csv_as_spreadsheets_of_other_countries_write_it(tmp_path, between, header):
    photo(tmp_path / "a.jpg")
    rows = [("image", "xmin", "ymin", "xmax", "ymax", "label")] if header else []
    rows += [("a.jpg", "1,5", "2", "30", "40,25", "dog"), ("a.jpg", "5", "5", "9", "9", "cat")]
    (tmp_path / "boxes.csv").write_text("".join(between.join(row) + "\n" for row in rows))
    data = kerasdet.data.load(tmp_path)
    np.testing.assert_array_equal(data[0].boxes, [[1.5, 2, 30, 40.25], [5, 5, 9, 9]])
    assert data.classes == ("cat", "dog")


def test_a_thousand_in_quotes_is_no_decimal(tmp_path):
    photo(tmp_path / "a.jpg")
    (tmp_path / "boxes.csv").write_text('a.jpg,1,2,30,40,dog\na.jpg,"1,234",2,30,40,dog\n')
    with pytest.raises(ValueError, match="line 2.*is not a box with a label"):
        kerasdet.data.load(tmp_path)


def test_csv_columns_in_another_order(tmp_path):
    photo(tmp_path / "a.jpg")
    header = "filename,width,height,class,xmin,ymin,xmax,ymax\n"
    (tmp_path / "train_labels.csv").write_text(header + "a.jpg,100,80,dog,1,2,30,40\n")
    np.testing.assert_array_equal(kerasdet.data.load(tmp_path)[0].boxes, [[1, 2, 30, 40]])


def test_csv_s_sizes_are_of_photos_unless_boxes_are_beyond_them(tmp_path):
    """Of a photo that a camera stored lying down, boxes drawn on it so lie elsewhere."""
    exif = Image.Exif()
    exif[274] = 6
    Image.new("RGB", (100, 80)).save(tmp_path / "a.jpg", exif=exif)
    header = "filename,width,height,class,xmin,ymin,xmax,ymax\n"
    (tmp_path / "a.csv").write_text(header + "a.jpg,100,80,dog,1,2,90,40\n")
    with pytest.raises(ValueError, match="written as 100 x 80, .*has 80 x 100 once turned upright"):
        kerasdet.data.load(tmp_path)
    # A box's own width and height, in a table that says both.
    (tmp_path / "a.csv").write_text(header + "a.jpg,30,20,dog,41,22,71,42\n")
    np.testing.assert_array_equal(kerasdet.data.load(tmp_path)[0].boxes, [[41, 22, 71, 42]])


@pytest.mark.parametrize("other", ["b.jpg,64,48,dog,1,2,65,40", "b.jpg,,,dog,1,2,60,40"])
def test_one_row_does_not_excuse_the_others_of_a_csv(tmp_path, other):
    exif = Image.Exif()
    exif[274] = 6
    Image.new("RGB", (64, 48)).save(tmp_path / "a.jpg", exif=exif)
    photo(tmp_path / "b.jpg", (64, 48))
    header = "filename,width,height,class,xmin,ymin,xmax,ymax\n"
    (tmp_path / "a.csv").write_text(header + f"a.jpg,64,48,dog,1,2,40,40\n{other}\n")
    with pytest.raises(ValueError, match="written as 64 x 48, .*has 48 x 64 once turned upright"):
        kerasdet.data.load(tmp_path, on_bad_box="drop")


def test_splits_share_the_union_of_their_classes(tmp_path):
    coco(tmp_path, [], "train", categories=[{"id": 1, "name": "dog"}])
    coco(tmp_path, [], "val", categories=[{"id": 1, "name": "dog"}, {"id": 0, "name": "cat"}])
    assert kerasdet.data.load(tmp_path, "train").classes == ("cat", "dog")
    assert kerasdet.data.load(tmp_path, "val").classes == ("cat", "dog")


def test_given_classes_set_the_order(tmp_path):
    folder = coco(tmp_path, [annotation([1, 2, 3, 4], category_id=3)])
    data = kerasdet.data.load(folder, classes=["horse", "dog", "cat"])
    assert data.classes == ("horse", "dog", "cat") and data[0].labels.tolist() == [2]


def test_an_upright_photo_that_the_camera_stored_lying_down(tmp_path):
    exif = Image.Exif()
    exif[274] = 6  # turn a quarter clockwise to see it upright
    photo(tmp_path / "a.jpg", (100, 80), exif=exif)
    (tmp_path / "boxes.csv").write_text("a.jpg,1,2,70,95,dog\n")
    data = kerasdet.data.load(tmp_path)
    assert (data[0].width, data[0].height) == (80, 100)
    np.testing.assert_array_equal(data[0].boxes, [[1, 2, 70, 95]])


def test_a_photo_that_the_disk_lists_in_other_letters(tmp_path, monkeypatch):
    """Disks of macOS and Windows open a.jpg where they list A.JPG."""
    monkeypatch.setattr(os, "listdir", lambda folder: ["A.JPG"])
    monkeypatch.setattr(os.path, "isfile", lambda path: path.lower() == str(tmp_path / "a.jpg").lower())
    finder = PhotoFinder(Source("train", tmp_path, [], [tmp_path]))
    assert finder.find(Record("a.jpg", "a.csv", 1)) == str(tmp_path / "a.jpg")
    with pytest.raises(FileNotFoundError, match="photo 'b.jpg' is not there"):
        finder.find(Record("b.jpg", "a.csv", 1))
