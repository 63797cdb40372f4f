"""`kerasdet data ...`: what it prints and writes, and how it says what is wrong."""

import ast
import csv
import re
import shutil
import types

import numpy as np
import pytest
from commands import run
from PIL import Image

from kerasdet.boxes.kmeans import kmeans_anchors
from kerasdet.data import load
from kerasdet.data.scenes import write_shapes

pytestmark = pytest.mark.usefixtures("shelf")

# === anchors ===


def test_data_anchors_prints_and_draws_them(shapes, tmp_path):
    picture = tmp_path / "new" / "anchors.png"
    output = run("data", "anchors", shapes.root, "--count", 3, "--size", 128, "--plot", picture)
    boxes = np.concatenate([sample.boxes for sample in shapes])
    expected = kmeans_anchors(2 * (boxes[:, 2:] - boxes[:, :2]), 3)
    assert f"{len(boxes)} boxes in the square of 128 px" in output
    pairs = re.search(r"anchors=(\(.*\))", output)[1]
    np.testing.assert_allclose(ast.literal_eval(pairs), expected, atol=0.051)
    for width, height in expected:
        assert f"{width:.1f}" in output and f"{height:.1f}" in output
    rows = [line for line in output.split("\n") if "│" in line and "%" in line]
    shares = [float(row.split("%")[0].split()[-1]) for row in rows]
    assert len(shares) == 3 and sum(shares) == pytest.approx(100, abs=0.2)
    assert Image.open(picture).size[0] > 500


def test_data_anchors_says_how_many_boxes_they_fit(tmp_path):
    """Three boxes of 40 px and one of 10: their mean, 32.5 px, has an IoU of .66 with those, .09 with it."""
    Image.new("RGB", (100, 100)).save(tmp_path / "a.png")
    corners = ((0, 0, 40), (50, 0, 40), (0, 50, 40), (60, 60, 10))
    rows = "".join(f"a.png,{x},{y},{x + side},{y + side},cat\n" for x, y, side in corners)
    (tmp_path / "boxes.csv").write_text(f"image,xmin,ymin,xmax,ymax,label\n{rows}")
    output = run("data", "anchors", tmp_path, "--count", 1, "--size", 100)
    assert "mean IoU 0.519, 75.0% of them with an IoU of .5 or more" in output
    assert "anchors=((32.5, 32.5))" in output


def test_data_anchors_of_letterboxed_photos(tmp_path):
    """A photo of 100 x 50: its box of 40 x 20 is as many pixels high and wide there as in the network."""
    Image.new("RGB", (100, 50)).save(tmp_path / "a.png")
    (tmp_path / "boxes.csv").write_text("image,xmin,ymin,xmax,ymax,label\na.png,10,10,50,30,cat\n")
    for resize, sides in (("letterbox", "(80, 40)"), ("stretch", "(80, 80)")):
        output = run("data", "anchors", tmp_path, "--count", 1, "--size", 200, "--resize", resize)
        assert f"anchors=({sides})" in output and f"the square of 200 px ({resize})" in output


def test_data_anchors_says_what_is_wrong(shapes, tmp_path):
    output = run("data", "anchors", shapes.root, "--count", 999, code=2)
    assert "error: 999 anchors of" in output
    assert "error:" in run("data", "anchors", tmp_path / "gone", code=2)
    (tmp_path / "mine.png").write_text("mine")
    output = run("data", "anchors", shapes.root, "--count", 3, "--plot", tmp_path / "mine.png", code=2)
    assert "mine.png exists" in output and (tmp_path / "mine.png").read_text() == "mine"
    run("data", "anchors", shapes.root, "--count", 3, "--plot", tmp_path / "mine.png", "--overwrite")
    assert Image.open(tmp_path / "mine.png").size[0] > 100


def test_anchors_that_are_printed_are_by_rising_area(monkeypatch, shapes):
    """Of 172.8 and 173.2 square pixels; as they are printed, of 173.2 and 172.6."""
    found = np.array([[12.15, 14.22], [10.4, 16.65], [20, 20]])
    monkeypatch.setattr("kerasdet.boxes.kmeans.kmeans_anchors", lambda *given: found)
    output = run("data", "anchors", shapes.root, "--count", 3, "--size", 128)
    assert "anchors=((10.4, 16.6), (12.2, 14.2), (20, 20))" in output


# === convert ===


def test_data_convert_writes_all_splits_and_says_what_is_lost(scenes, tmp_path):
    output = run("data", "convert", scenes.root, tmp_path / "yolo", "--to", "yolo")
    people = sum(len(sample.boxes) for sample in scenes)
    assert f"ODGT to yolo: 12 photos with {people} boxes in train" in output
    heads = int(sum(sample.part_weights.sum() for sample in scenes))
    assert f"warning: yolo: boxes of the part 'head' left out: {heads}" in output
    back = load(tmp_path / "yolo")
    for old, new in zip(scenes, back, strict=True):
        np.testing.assert_allclose(new.boxes, old.boxes, atol=1e-4)
    output = run("data", "convert", scenes.root, tmp_path / "yolo", "--to", "coco", code=2)
    assert "yolo exists and is not empty; give another folder" in output
    assert "gone: no such folder" in run("data", "convert", "gone", tmp_path / "x", "--to", "csv", code=2)
    run("data", "convert", scenes.root, tmp_path / "x", "--to", "tfrecord", code=2)
    run("data", "convert", scenes.root, tmp_path / "linked", "--to", "odgt", "--link")
    assert all(file.is_symlink() for file in (tmp_path / "linked" / "images" / "train").iterdir())


# === show ===


def test_data_show_draws_photos_by_lot(shapes, tmp_path):
    output = run("data", "show", shapes.root, "--out", tmp_path / "new" / "page.png", "--count", 3)
    assert "3 of 16 photos" in output
    first = Image.open(tmp_path / "new" / "page.png")
    assert first.size[0] > 600
    run("data", "show", shapes.root, "--out", tmp_path / "other.png", "--count", 3, "--seed", 1)
    assert np.asarray(first).tobytes() != np.asarray(Image.open(tmp_path / "other.png")).tobytes()
    output = run("data", "show", shapes.root, "--out", tmp_path / "other.png", code=2)
    assert "other.png exists; give another --out, or --overwrite" in output
    run("data", "show", shapes.root, "--out", tmp_path / "other.png", "--count", 1, "--overwrite")
    assert Image.open(tmp_path / "other.png").size[0] < 400
    output = run("data", "show", shapes.root, "--out", tmp_path / "page.gif", code=2)
    assert "give a name that ends in .jpg or .jpeg or .png" in output


# === doctor ===


def test_data_doctor_of_a_sound_set_against_a_model(scenes, tmp_path):
    output = run("data", "doctor", scenes.root, "--model", "tiny", "--out", tmp_path / "out")
    assert "ODGT, 12 photos in train" in output and "nothing wrong" in output
    assert "in the square of 64 px" in output and "less than a cell (8 px)" in output
    assert (tmp_path / "out" / "faults.csv").read_text() == "kind,split,photo,what\n"
    assert Image.open(tmp_path / "out" / "sizes.png").size[0] > 900
    assert Image.open(tmp_path / "out" / "classes.png").size[0] > 300


def test_options_that_would_do_nothing_are_refused(shapes):
    output = run("data", "doctor", shapes.root, "--link", code=2)
    assert "--link is for the copy that --write makes" in output
    output = run("data", "anchors", shapes.root, "--overwrite", code=2)
    assert "--overwrite is for the picture of --plot" in output


def test_data_doctor_holds_sizes_against_anchors(shapes, monkeypatch):
    detector = types.SimpleNamespace(image_size=64, resize="stretch", anchors=((8, 8), (24, 24)))
    monkeypatch.setattr("kerasdet.zoo.load_file", lambda name: detector)
    output = run("data", "doctor", shapes.root, "--model", "mine.keras")
    # Squares of side s share s^2 / 576 with the larger anchor, or 576 / s^2, and so on.
    sides = np.concatenate([sample.boxes[:, 2] - sample.boxes[:, 0] for sample in shapes])
    fits = np.any([np.minimum(sides / a, a / sides) ** 2 >= 0.5 for a in (8, 24)], axis=0)
    assert 0 < fits.mean() < 1 and f"{1 - fits.mean():.1%} fit no anchor by IoU 0.5" in output


def test_data_doctor_names_faults_and_writes_a_clean_copy(tmp_path):
    folder, clean = tmp_path / "set", tmp_path / "clean"
    write_shapes(folder, 24, seed=1)
    write_shapes(folder, 3, seed=1, split="val")
    whole = (folder / "images" / "train_00003.jpg").read_bytes()
    (folder / "images" / "train_00003.jpg").write_bytes(whole[: len(whole) // 2])
    for index in range(6):
        shutil.copy(folder / "images" / "val_00000.jpg", folder / "images" / f"train_0000{index}.jpg")
    (folder / "images" / "train_00007.jpg").write_bytes(whole[: len(whole) // 2])
    output = run("data", "doctor", folder, "--out", tmp_path / "out", "--write", clean, code=1)
    assert "broken photo: 1" in output and "train train_00007.jpg: " in output
    assert "near-duplicate: 6" in output and "... and 1 more; --out lists them all" in output
    assert f"clean copy in {clean}/: 17 photos in train, 3 photos in val" in output
    with (tmp_path / "out" / "faults.csv").open() as lines:
        assert sum(row["kind"] == "near-duplicate" for row in csv.DictReader(lines)) == 6
    assert Image.open(tmp_path / "out" / "near_duplicates.jpg").size[0] > 1000
    assert "nothing wrong" in run("data", "doctor", clean)
    output = run("data", "doctor", folder, "--write", clean, code=2)
    assert "clean exists and is not empty" in output
