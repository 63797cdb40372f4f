"""Everything wrong with a set is said clearly, by file, value and remedy."""

import json
import os

import numpy as np
import pytest
from annotations import annotation, coco, photo, voc

import kerasdet.data


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


FULL = {"size": [80, 100], "counts": [0, 8000]}


def test_run_lengths_of_another_size_than_the_photos(tmp_path, monkeypatch):
    """Whatever the file says of the photo, or does not: a large mask is few bytes, and is not unpacked."""
    large = {"size": [4000, 4000], "counts": [0, 16_000_000]}
    images = [{"id": 1, "file_name": "a.jpg"}]
    monkeypatch.setattr("kerasdet.data.readers.coco.MAX_PIXELS", 8000)
    masks = [annotation([1, 2, 3, 4], segmentation=runs) for runs in (FULL, large)]
    with pytest.warns(UserWarning, match=r"1 objects keep .*its size is not the photo's, \[80, 100\]"):
        data = kerasdet.data.load(coco(tmp_path, masks, images=images))
    assert [len(outline) for outline in data[0].masks] == [1, 0]


def test_run_lengths_of_many_masks_have_an_end(tmp_path, monkeypatch):
    monkeypatch.setattr("kerasdet.data.readers.coco.MAX_PIXELS", 20_000)
    monkeypatch.setattr("kerasdet.data.readers.coco.PIXELS_EACH", 5_000)
    masks = [annotation([1, 2, 3, 4], segmentation=FULL)] * 4
    with pytest.warns(UserWarning, match="2 objects keep .*masks of more pixels in all than so many"):
        data = kerasdet.data.load(coco(tmp_path, masks))
    assert [len(outline) for outline in data[0].masks] == [1, 1, 0, 0]


def test_a_class_that_breaks_a_line(tmp_path):
    categories = [{"id": 3, "name": "traffic\nlight"}]
    with pytest.raises(ValueError, match="train.json: the class 'traffic.*nlight' has a line break"):
        kerasdet.data.load(coco(tmp_path, [annotation([1, 2, 3, 4])], categories=categories))


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
    message = "choose a split: 'test', 'val'; or, .*, give the annotation file of one"
    with pytest.raises(ValueError, match=message):
        kerasdet.data.load(tmp_path)
    assert len(kerasdet.data.load(tmp_path / "instances_val.json")) == 2


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
