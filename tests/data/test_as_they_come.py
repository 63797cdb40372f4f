"""Sets as other tools, systems and people leave them."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from annotations import annotation, coco, photo, voc
from PIL import Image

import kerasdet.data
from kerasdet.data.doctor import examine
from kerasdet.data.writers import write


@pytest.mark.parametrize("shown", [(50, 40), (80, 100)])
def test_boxes_of_a_photo_of_another_size_are_refused(tmp_path, shown):
    """Shrunk after labelling, or turned: written 100 x 80, and nothing says where its boxes lie now."""
    folder = coco(tmp_path / "set", [annotation([1, 2, 30, 40]), annotation([5, 5, 9, 9], image_id=2)])
    turned = shown == (80, 100)
    exif = Image.Exif()
    exif[0x0112] = 6 if turned else 1
    photo(folder / "images" / "a.jpg", (100, 80) if turned else shown, exif=exif)
    written = rf"image 'a.jpg' is written as 100 x 80, and .*a.jpg has {shown[0]} x"
    with pytest.raises(ValueError, match=written) as error:
        kerasdet.data.load(folder)
    assert ("turned upright" in str(error.value)) == turned and "data doctor" in str(error.value)
    report = examine(folder)
    assert [fault.kind for fault in report.of("wrong size")] == ["wrong size"]
    write(report.sets, tmp_path / "clean", "coco")
    clean = kerasdet.data.load(tmp_path / "clean")
    assert [sample.boxes.tolist() for sample in clean] == [[[5, 5, 14, 14]]]


def test_a_name_in_two_xmls_is_stale_in_one(tmp_path):
    """Of a copy that a tool mirrored with its xml: the photo of the xml's own name is meant."""
    for name, box in (("a", (1, 2, 30, 35)), ("a_flip", (70, 2, 99, 35))):
        photo(tmp_path / f"{name}.jpg")
        voc(tmp_path / f"{name}.xml", [("dog", box, 0)], filename="a.jpg")
    data = kerasdet.data.load(tmp_path)
    assert {Path(sample.path).name: sample.boxes[0, 0] for sample in data} == {"a.jpg": 1, "a_flip.jpg": 70}


def test_one_photo_annotated_twice_is_refused(tmp_path):
    """Each would teach that the other's objects are background; the doctor keeps the first."""
    images = [{"id": i, "file_name": name} for i, name in ((1, "a.jpg"), (2, "./a.jpg"), (3, "b.jpg"))]
    boxes = [annotation([1, 2, 30, 40]), annotation([5, 5, 9, 9], 2), annotation([5, 5, 9, 9], 3)]
    folder = coco(tmp_path / "set", boxes, images=images)
    with pytest.raises(ValueError, match=r"images 'a\.jpg' and '\./a\.jpg' are one photo, .*data doctor"):
        kerasdet.data.load(folder)
    report = examine(folder)
    (fault,) = report.of("repeated photo")
    assert fault.photo == "./a.jpg" and "the same photo as 'a.jpg'" in fault.what
    assert [sample.boxes.tolist() for sample in report.sets["train"]] == [[[1, 2, 31, 42]], [[5, 5, 14, 14]]]


def test_without_a_size_boxes_are_taken_as_they_are(tmp_path):
    photo(tmp_path / "a.jpg", (50, 40))
    voc(tmp_path / "a.xml", [("dog", (1, 2, 30, 35), 0)], size=False)
    assert kerasdet.data.load(tmp_path)[0].boxes.tolist() == [[1, 2, 30, 35]]


def test_names_of_photos_from_windows(tmp_path):
    image = {"id": 1, "file_name": "images\\a.jpg", "width": 100, "height": 80}
    data = kerasdet.data.load(coco(tmp_path, [annotation([1, 2, 3, 4])], images=[image]))
    assert data[0].path == str(tmp_path / "images" / "a.jpg")


@pytest.mark.parametrize("written", ["/home/me/my photos/x.jpg", "C:\\me\\x.jpg"])
def test_voc_s_photo_is_beside_its_xml_wherever_it_was(tmp_path, written):
    photo(tmp_path / "x.jpg")
    voc(tmp_path / "x.xml", [("dog", (1, 2, 30, 40), "True"), ("dog", (1, 2, 3, 4), "false")], written)
    data = kerasdet.data.load(tmp_path)
    assert data[0].path == str(tmp_path / "x.jpg")
    assert data[0].ignore.tolist() == [[1, 2, 30, 40]] and data[0].boxes.tolist() == [[1, 2, 3, 4]]


def test_lists_of_voc_may_name_photos_with_spaces(tmp_path):
    for name in ("my photo", "b"):
        photo(tmp_path / "JPEGImages" / f"{name}.jpg")
        voc(tmp_path / "Annotations" / f"{name}.xml", [("dog", (1, 2, 30, 40), 0)], f"{name}.jpg")
    lists = tmp_path / "ImageSets" / "Main"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("my photo  1\r\nb -1\r\n")
    assert [sample.image_id for sample in kerasdet.data.load(tmp_path)] == ["my photo", "b"]


def test_json_of_other_programs_lies_about(tmp_path):
    photo(tmp_path / "a.jpg")
    voc(tmp_path / "a.xml", [("dog", (1, 2, 30, 40), 0)])
    (tmp_path / "settings.json").write_text('{"tabs": 4}  // mine')
    (tmp_path / "metadata.json").write_text('{"a": 1}\n{"a": 2}\n')
    assert len(kerasdet.data.load(tmp_path)) == 1
    # But a set that was cut is no other program's.
    (tmp_path / "cut.json").write_text(json.dumps({"images": [], "annotations": []})[:-1])
    with pytest.raises(ValueError, match="cut.json: not valid json .* is the file complete"):
        kerasdet.data.load(tmp_path)


def test_what_macos_leaves_beside_photos_is_no_photo(tmp_path):
    photo(tmp_path / "images" / "a.jpg")
    (tmp_path / "images" / "._a.jpg").write_bytes(b"\0\5\26\7")
    (tmp_path / "images" / "folder.jpg").mkdir()
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "a.txt").write_text("0 .5 .5 .5 .5\n")
    (tmp_path / "classes.txt").write_text("dog\n")
    assert len(kerasdet.data.load(tmp_path)) == 1
    assert [path.name for path in kerasdet.photo.find([str(tmp_path)])] == ["a.jpg"]


def test_a_set_is_written_into_the_folder_one_stands_in(tmp_path, monkeypatch):
    photo(tmp_path / "a.jpg")
    voc(tmp_path / "a.xml", [("dog", (1, 2, 30, 40), 0)])
    data = kerasdet.data.load(tmp_path)
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    inode = here.stat().st_ino
    write({"train": data}, ".", "yolo")
    assert here.stat().st_ino == inode and sorted(p.name for p in here.iterdir()) == [
        "data.yaml", "images", "labels"
    ]
    shutil.rmtree(here / "images")
    with pytest.raises(FileExistsError, match="not empty"):
        write({"train": data}, here, "yolo")
    np.testing.assert_array_equal(data[0].boxes, [[1, 2, 30, 40]])
