"""Every format reads to the same samples, and everything wrong with a set is said clearly."""

import json
import os

import numpy as np
import pytest
from PIL import Image

import kerasdet.data


def photo(path, size=(100, 80), **save):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (90, 120, 150)).save(path, **save)


def coco(folder, annotations, split="train", images=None, categories=None):
    """A COCO file in `folder` for photos a.jpg (id 1) and b.jpg (id 2), and the photos."""
    images = images or [
        {"id": 1, "file_name": "a.jpg", "width": 100, "height": 80},
        {"id": 2, "file_name": "b.jpg", "width": 100, "height": 80},
    ]
    categories = categories or [{"id": 7, "name": "dog"}, {"id": 3, "name": "cat"}]
    for name in ("a.jpg", "b.jpg"):
        photo(folder / "images" / name)
    text = json.dumps({"images": images, "annotations": annotations, "categories": categories})
    (folder / f"instances_{split}.json").write_text(text)
    return folder


def annotation(bbox, image_id=1, category_id=3, **more):
    return {"id": 1, "image_id": image_id, "category_id": category_id, "bbox": bbox} | more


def voc(file, objects, filename="a.jpg", size=True):
    things = "".join(
        f"<object><name>{name}</name><difficult>{difficult}</difficult><bndbox><xmin>{b[0]}</xmin>"
        f"<ymin>{b[1]}</ymin><xmax>{b[2]}</xmax><ymax>{b[3]}</ymax></bndbox></object>"
        for name, b, difficult in objects
    )
    written = "<size><width>100</width><height>80</height></size>" if size else ""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"<annotation><filename>{filename}</filename>{written}{things}</annotation>")


# === What each format says ===


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
            ],
        )
    )
    assert data.classes == ("cat", "dog")  # ids 3 and 7
    assert [os.path.basename(sample.path) for sample in data] == ["a.jpg", "b.jpg"]
    first, empty = data
    np.testing.assert_array_equal(first.boxes, [[10, 20, 40, 60], [50, 50, 60, 60]])
    assert first.labels.tolist() == [1, 0]
    np.testing.assert_array_equal(first.ignore, [[0, 0, 20, 20]])
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


def test_csv_columns_in_another_order(tmp_path):
    photo(tmp_path / "a.jpg")
    header = "filename,width,height,class,xmin,ymin,xmax,ymax\n"
    (tmp_path / "train_labels.csv").write_text(header + "a.jpg,100,80,dog,1,2,30,40\n")
    np.testing.assert_array_equal(kerasdet.data.load(tmp_path)[0].boxes, [[1, 2, 30, 40]])


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


# === What can be wrong ===


@pytest.mark.parametrize(
    ("bbox", "reason"),
    [
        ([10, 20, 0, 20], "no area: width 0, height 20"),
        ([10, 20, 5, -3], "no area: width 5, height -3"),
        ([100, 20, 30, 20], "outside of the photo, which is 100 x 80"),
        ([-40, 20, 30, 20], "outside of the photo"),
        ([float("nan"), 20, 30, 20], "not finite"),
        ([10, 20, float("inf"), 20], "not finite"),
    ],
)
def test_a_bad_box_is_named_or_dropped_with_a_count(tmp_path, bbox, reason):
    good = annotation([10, 20, 30, 40], category_id=7)
    folder = coco(tmp_path, [good, annotation(bbox), good, annotation([1, 2, 9, 9], image_id=2)])
    with pytest.raises(ValueError) as caught:
        kerasdet.data.load(folder)
    message = str(caught.value)
    assert "instances_train.json: image 'a.jpg' box 1 is" in message
    assert reason in message and 'on_bad_box="drop"' in message
    with pytest.warns(UserWarning, match="dropped 1 bad box of 4"):
        data = kerasdet.data.load(folder, on_bad_box="drop")
    np.testing.assert_array_equal(data[0].boxes, [[10, 20, 40, 60]] * 2)
    assert data[0].labels.tolist() == [1, 1]
    np.testing.assert_array_equal(data[1].boxes, [[1, 2, 10, 11]])


def test_boxes_that_reach_outside_are_cut_at_the_photo_s_edge(tmp_path):
    data = kerasdet.data.load(coco(tmp_path, [annotation([-10, 50, 200, 60])]))
    np.testing.assert_array_equal(data[0].boxes, [[0, 50, 100, 80]])


def test_dropped_people_take_their_heads_with_them(tmp_path):
    photo(tmp_path / "one.jpg")
    people = [
        {"tag": "person", "fbox": [200, 5, 20, 60], "hbox": [205, 5, 8, 9]},
        {"tag": "person", "fbox": [40, 5, 20, 60], "hbox": [45, 5, 8, 9]},
    ]
    (tmp_path / "x.odgt").write_text(json.dumps({"ID": "one", "gtboxes": people}))
    with pytest.warns(UserWarning, match="dropped 1 bad box of 2"):
        (sample,) = kerasdet.data.load(tmp_path, on_bad_box="drop")
    np.testing.assert_array_equal(sample.boxes, [[40, 5, 60, 65]])
    np.testing.assert_array_equal(sample.parts, [[[45, 5, 53, 14]]])


def test_relative_boxes_are_recognised(tmp_path):
    folder = coco(tmp_path, [annotation([0.1, 0.2, 0.3, 0.4]), annotation([0, 0, 1, 1])])
    with pytest.raises(ValueError, match=r"all 2 boxes lie within 0\.\.1.*look relative"):
        kerasdet.data.load(folder)


def test_a_missing_photo(tmp_path):
    folder = coco(tmp_path, [])
    (folder / "images" / "b.jpg").unlink()
    with pytest.raises(FileNotFoundError, match="instances_train.json: photo 'b.jpg' is not there"):
        kerasdet.data.load(folder)


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "images/../../secret.jpg"])
def test_paths_that_lead_out_of_the_folder_are_refused(tmp_path, name):
    photo(tmp_path / "secret.jpg")
    folder = tmp_path / "set"
    coco(folder, [], images=[{"id": 1, "file_name": name, "width": 100, "height": 80}])
    with pytest.raises(ValueError, match="lies outside of"):
        kerasdet.data.load(folder)


def test_no_candidate_folder_leads_out_either(tmp_path):
    # Harmless as written beside annotations/, but one up from the set's own folder.
    photo(tmp_path / "secret.jpg")
    folder = tmp_path / "set" / "annotations"
    coco(folder, [], images=[{"id": 1, "file_name": "../secret.jpg", "width": 9, "height": 9}])
    with pytest.raises(FileNotFoundError, match="is not there"):
        kerasdet.data.load(tmp_path / "set")


def test_a_linked_folder_of_photos(tmp_path):
    elsewhere = tmp_path / "elsewhere"
    folder = coco(tmp_path / "set", [])
    (folder / "images").rename(elsewhere)
    (folder / "images").symlink_to(elsewhere)
    assert len(kerasdet.data.load(folder)) == 2


@pytest.mark.parametrize("name", ["a\0.jpg", "\ud800.jpg", "x" * 300 + ".jpg"])
def test_a_photo_that_can_be_no_file(tmp_path, name):
    images = [{"id": 1, "file_name": name, "width": 10, "height": 10}]
    with pytest.raises(ValueError, match="instances_train.json: photo .* is no name of a file"):
        kerasdet.data.load(coco(tmp_path, [], images=images))


@pytest.mark.parametrize("name", ["../../outside", "/etc/passwd", "a\0b"])
def test_a_list_of_voc_cannot_lead_elsewhere(tmp_path, name):
    voc(tmp_path / "outside.xml", [])
    voc(tmp_path / "set" / "Annotations" / "a.xml", [])
    photo(tmp_path / "set" / "JPEGImages" / "a.jpg")
    lists = tmp_path / "set" / "ImageSets" / "Main"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text(f"a\n{name}\n")
    with pytest.raises(ValueError, match="train.txt: .* lies outside of .*Annotations"):
        kerasdet.data.load(tmp_path / "set")


def test_a_list_of_voc_without_photos(tmp_path):
    voc(tmp_path / "Annotations" / "a.xml", [])
    (tmp_path / "ImageSets" / "Main").mkdir(parents=True)
    (tmp_path / "ImageSets" / "Main" / "train.txt").write_text("\n")
    with pytest.raises(ValueError, match="train.txt: lists no photos"):
        kerasdet.data.load(tmp_path)


def test_pipes_are_no_annotations(tmp_path):
    coco(tmp_path, [annotation([1, 2, 3, 4])])
    for name in ("b.json", "c.xml", "d.csv", "e.odgt", "data.yaml"):
        os.mkfifo(tmp_path / name)
    assert len(kerasdet.data.load(tmp_path)) == 2


@pytest.mark.parametrize(
    "runs",
    [
        {"size": [80, 100], "counts": "zzzz"},
        {"size": [80, 100], "counts": "P" * 100},  # says that more follows, to the end
        {"size": [80, 100], "counts": [10, 10**9]},
        {"size": [80, 100], "counts": [-8000, 16000]},
        {"size": [10**6, 10**6], "counts": "04"},
        {"size": [80], "counts": "04"},
        {"counts": [8000]},
        {"size": [80, 100], "counts": 10**18},
    ],
)
def test_run_lengths_that_lead_out_of_the_mask(tmp_path, runs):
    """pycocotools 2.0.11 reads and writes beyond its memory at some of these."""
    with pytest.warns(UserWarning, match="1 objects keep their box and lose their outline.*annotation 1 "):
        data = kerasdet.data.load(coco(tmp_path, [annotation([1, 2, 3, 4], segmentation=runs)]))
    assert len(data[0].boxes) == 1 and not data[0].masks


def test_yaml_that_grows_is_refused_in_a_few_words(tmp_path):
    photo(tmp_path / "images" / "a.jpg")
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "a.txt").write_text("0 0.5 0.5 0.1 0.1\n")
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12)]
    (tmp_path / "data.yaml").write_text("\n".join([*lines, "names: [*a11]"]))
    with pytest.raises(ValueError, match="data.yaml: names is ") as error:
        kerasdet.data.load(tmp_path)
    assert len(str(error.value)) < 1000


def test_xml_that_grows_is_refused(tmp_path):
    photo(tmp_path / "a.jpg")
    entities = "".join(f'<!ENTITY e{i} "{f"&e{i - 1};" * 10}">' for i in range(1, 12))
    (tmp_path / "a.xml").write_text(
        f'<!DOCTYPE annotation [<!ENTITY e0 "xxxxxxxxxx">{entities}]>'
        "<annotation><object>&e11;</object></annotation>"
    )
    with pytest.raises(ValueError, match="a.xml: not valid xml"):
        kerasdet.data.load(tmp_path)


def test_ignore_regions_are_somewhere(tmp_path):
    regions = [annotation([1, 2, float("nan"), 4], iscrowd=1)]
    with pytest.raises(ValueError, match="image 'a.jpg' has an ignore region .*not finite numbers"):
        kerasdet.data.load(coco(tmp_path, regions))


def test_an_unreadable_photo_whose_size_is_needed(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"not a photo")
    (tmp_path / "boxes.csv").write_text("a.jpg,1,2,30,40,dog\n")
    with pytest.raises(ValueError, match="a.jpg: is not an image that can be read"):
        kerasdet.data.load(tmp_path)


def test_an_unknown_class(tmp_path):
    folder = coco(tmp_path, [annotation([1, 2, 3, 4], category_id=7)])
    with pytest.raises(ValueError, match="'a.jpg': there is no class 'dog'. Did you mean 'dogs'?"):
        kerasdet.data.load(folder, classes=["dogs", "cat"])


def test_classes_as_one_text_or_twice(tmp_path):
    folder = coco(tmp_path, [])
    with pytest.raises(ValueError, match=r"give a list, such as \['cat'\]"):
        kerasdet.data.load(folder, classes="cat")
    with pytest.raises(ValueError, match="occurs twice"):
        kerasdet.data.load(folder, classes=["cat", "cat"])


def test_a_set_without_any_class_needs_to_be_told(tmp_path):
    photo(tmp_path / "a.jpg")
    (tmp_path / "boxes.csv").write_text("image,xmin,ymin,xmax,ymax,label\na.jpg,,,,,\n")
    with pytest.raises(ValueError, match="no class is named in 1 photos"):
        kerasdet.data.load(tmp_path)
    assert len(kerasdet.data.load(tmp_path, classes=["dog"])) == 1


def test_an_empty_set(tmp_path):
    (tmp_path / "annotation_train.odgt").write_text("\n")
    with pytest.raises(ValueError, match="annotation_train.odgt: the set is empty"):
        kerasdet.data.load(tmp_path)


def test_nothing_recognised_says_what_was_looked_for_and_found(tmp_path):
    photo(tmp_path / "a.jpg")
    photo(tmp_path / "b.jpg")
    (tmp_path / "settings.json").write_text("{}")
    (tmp_path / "prices.csv").write_text("thing,price\ncup,3\n")
    with pytest.raises(ValueError) as caught:
        kerasdet.data.load(tmp_path)
    message = str(caught.value)
    for looked_for in ("COCO json", "ODGT", "VOC xml", "CSV"):
        assert looked_for in message
    assert "2 .jpg" in message and "1 .json" in message and "1 .csv" in message


def test_two_formats_in_one_folder(tmp_path):
    coco(tmp_path, [annotation([1, 2, 3, 4])])
    (tmp_path / "boxes.csv").write_text("a.jpg,1,2,30,40,bird\n")
    with pytest.raises(ValueError, match="more than one format: COCO json .* CSV"):
        kerasdet.data.load(tmp_path)
    assert kerasdet.data.load(tmp_path / "boxes.csv").classes == ("bird",)


def test_an_unknown_split(tmp_path):
    coco(tmp_path, [])
    with pytest.raises(ValueError, match="no split 'trian'. Did you mean 'train'?"):
        kerasdet.data.load(tmp_path, split="trian")


def test_several_splits_without_a_train_must_be_chosen(tmp_path):
    coco(tmp_path, [], "val")
    coco(tmp_path, [], "test")
    with pytest.raises(ValueError, match="choose a split: 'test', 'val'"):
        kerasdet.data.load(tmp_path)


def test_two_files_of_one_split(tmp_path):
    coco(tmp_path, [], "train2014")
    coco(tmp_path, [], "train2017")
    with pytest.raises(ValueError, match="instances_train2014.json and .*are split 'train'"):
        kerasdet.data.load(tmp_path)


def test_a_path_that_is_not_there_or_no_annotation_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere: no such folder"):
        kerasdet.data.load(tmp_path / "nowhere")
    photo(tmp_path / "a.jpg")
    with pytest.raises(ValueError, match="a.jpg: not an annotation file"):
        kerasdet.data.load(tmp_path / "a.jpg")


def test_on_bad_box_is_one_of_two(tmp_path):
    with pytest.raises(ValueError, match="choose 'error' or 'drop'"):
        kerasdet.data.load(tmp_path, on_bad_box="ignore")


@pytest.mark.parametrize(
    ("annotations", "message"),
    [
        ([annotation([1, 2, 3, 4], image_id=9)], "belongs to image id 9"),
        ([annotation([1, 2, 3, 4], category_id=9)], "category_id 9, which is not among"),
        ([annotation([1, 2, 3])], r"bbox \[1, 2, 3\]; write \[x, y, width, height\]"),
        ([annotation([1, 2, "x", 4])], "bbox .*'x'"),
        ([annotation([1, 2, None, 4])], "bbox .*None"),
        ([{"id": 4, "image_id": 1, "category_id": 3}], "annotation 4 has bbox None"),
    ],
)
def test_broken_coco_annotations(tmp_path, annotations, message):
    with pytest.raises(ValueError, match=message):
        kerasdet.data.load(coco(tmp_path, annotations))


def test_coco_numbers_written_as_text(tmp_path):
    (first, _) = kerasdet.data.load(coco(tmp_path, [annotation(["10", "20", "30", "40"])]))
    np.testing.assert_array_equal(first.boxes, [[10, 20, 40, 60]])


@pytest.mark.parametrize(
    "images", [[{"id": 1}], ["a.jpg"], [{"id": 1, "file_name": "a.jpg", "width": "w"}]]
)
def test_incomplete_coco_images(tmp_path, images):
    with pytest.raises(ValueError, match="instances_train.json: an entry of 'images'"):
        kerasdet.data.load(coco(tmp_path, [], images=images))


def test_coco_image_ids_must_be_unique(tmp_path):
    images = [{"id": 1, "file_name": "a.jpg"}, {"id": 1, "file_name": "b.jpg"}]
    with pytest.raises(ValueError, match="image id 1 occurs twice"):
        kerasdet.data.load(coco(tmp_path, [], images=images))


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("instances_train.json", '{"images": [', "not valid json"),
        ("a.xml", "<annotation><object>", "not valid xml"),
        ("a.odgt", '{"ID": "a", "gtboxes": [{"tag": "person"}]}', "line 1: not an ODGT photo"),
        ("a.odgt", "nonsense", "line 1: not an ODGT photo"),
        (
            "a.csv",
            "image,xmin,ymin,xmax,ymax,label\na.jpg,1,2,x,4,dog\n",
            "line 2: .* four numbers",
        ),
        ("a.csv", "a.jpg,1,2,3,4,\n", "line 1: .* four numbers"),
        ("a.xml", "<annotation><object><name>x</name></object></annotation>", "needs a <name>"),
    ],
)
def test_broken_files_are_named(tmp_path, name, text, message):
    photo(tmp_path / "a.jpg")
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=f"{name}.*{message}"):
        kerasdet.data.load(tmp_path)
