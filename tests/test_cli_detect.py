"""Detecting on many photos: streamed, stopped and gone on with, in shards."""

import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import weakref

import numpy as np
import pytest
from commands import run
from PIL import Image

from kerasdet import cli_detect, photo, zoo
from kerasdet.detections import Detections

PHOTOS = 30


class Brightness:
    """Finds one thing on each photo, as sure as the photo is bright; nothing on black ones."""

    def detect(self, photos, score, batch_size):
        assert len(photos) <= batch_size
        return [self.look(image, score) for image in photos]

    def look(self, image, score):
        height, width, _ = image.shape
        sure = np.full(1, image.mean() / 255, np.float32)
        kept = sure[sure >= max(score, 1e-6)]
        boxes = np.tile(np.float32([0, 0, width, height]), (len(kept), 1))
        return Detections(boxes, kept, np.zeros(len(kept), int), ("thing",), photo=image)


@pytest.fixture
def bright(monkeypatch):
    monkeypatch.setattr(zoo, "load_file", lambda model: Brightness())


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """Photos from black to white, of which one is broken."""
    folder = tmp_path_factory.mktemp("many")
    for index in range(PHOTOS):
        image = np.full((8, 12, 3), 255 * index // (PHOTOS - 1), np.uint8)
        Image.fromarray(image).save(folder / f"{index:02}.png")
    (folder / "11.png").write_bytes(b"no png")
    return folder


def rows_of(path):
    return json.loads(path.read_text())


def test_rows_are_those_of_the_photos_in_order(many, tmp_path, bright):
    output = run("detect", many, "--out", tmp_path / "out", "--score", 0.5, "--no-draw", code=2)
    assert f"1 of {PHOTOS} photos could not be read" in output and "skipped: " in output
    rows = rows_of(tmp_path / "out" / "detections.json")
    assert [row["image_id"] for row in rows] == list(range(16, PHOTOS + 1))
    assert [row["file_name"] for row in rows] == [str(many / f"{i:02}.png") for i in range(15, PHOTOS)]
    assert sorted(os.listdir(tmp_path / "out")) == ["detections.json", "detections.progress"]


def test_names_that_are_no_text_are_told_and_gone_on_from(many, tmp_path):
    """In a process of its own, whose streams are Python's own."""
    for name, content in ((b"broken\xff.png", b"no png"), (b"fine\xe9.png", (many / "20.png").read_bytes())):
        try:
            with open(os.path.join(os.fsencode(tmp_path), name), "wb") as file:
                file.write(content)
        except OSError:
            pytest.skip("this file system has no such names")
    command = [sys.executable, "-c", BRIGHT, "detect", tmp_path, "--out", tmp_path / "out", "--no-draw"]
    done = subprocess.run(
        list(map(str, command)), capture_output=True, env=os.environ | {"PYTHONIOENCODING": "utf-8:strict"},
    )
    said = (done.stdout + done.stderr).decode()
    assert done.returncode == 2 and "1 of 2 photos could not be read" in said, said
    assert len(rows_of(tmp_path / "out" / "detections.json")) == 1


BRIGHT = f"""
import sys
sys.path.insert(0, {os.path.dirname(__file__)!r})
from test_cli_detect import Brightness
from kerasdet import cli, zoo
zoo.load_file = lambda model: Brightness()
cli.app()
"""


# Dies in the third batch, as a machine that is taken away: after it has drawn, before it has written.
KILLED = """
import os, signal, sys
sys.path.insert(0, sys.argv.pop(1))
from kerasdet import cli, zoo
from kerasdet.results import ResultsFile
from test_cli_detect import Brightness
add, calls = ResultsFile.add, []
def add_or_die(self, rows, photos, unreadable=0):
    calls.append(photos)
    if sum(calls) > 2 * 8:
        os.kill(os.getpid(), signal.SIGKILL)
    add(self, rows, photos, unreadable)
ResultsFile.add = add_or_die
zoo.load_file = lambda model: Brightness()
cli.app()
"""


def test_killed_and_gone_on_with_it_is_as_never_killed(many, tmp_path, bright, monkeypatch):
    whole, out = tmp_path / "whole", tmp_path / "out"
    run("detect", many, "-o", whole, "--score", 0, code=2)
    here = os.path.dirname(__file__)
    killed = subprocess.run([sys.executable, "-c", KILLED, here, "detect", many, "-o", out, "--score", "0"])
    assert killed.returncode == -signal.SIGKILL
    # All but the batch that it was killed in is there.
    assert {row["image_id"] for row in rows_of(out / "detections.json")} == set(range(2, 17)) - {12}
    assert "detections.json exists; --resume goes on with it" in run(
        "detect", many, "-o", out, "--score", 0, code=2
    )
    looked_at = []
    look = Brightness.look
    monkeypatch.setattr(Brightness, "look", lambda *args: looked_at.append(1) or look(*args))
    again = run("detect", many, "-o", out, "--score", 0, "--resume", code=2)
    assert len(looked_at) == PHOTOS - 16 and f"16 of {PHOTOS} photos had been looked at" in again
    assert f"1 of {PHOTOS} photos could not be read" in again
    assert sorted(os.listdir(out)) == sorted(os.listdir(whole))
    for name in os.listdir(whole):
        assert (out / name).read_bytes() == (whole / name).read_bytes(), name
    # Done is done; what was asked for otherwise is another thing.
    run("detect", many, "-o", out, "--score", 0, "--resume", code=2)
    assert len(looked_at) == PHOTOS - 16
    assert "begun with score 0.0, now it is 0.5" in run(
        "detect", many, "-o", out, "--score", 0.5, "--resume", code=2
    )


def test_shards_together_are_the_whole(many, tmp_path, bright):
    run("detect", many, "-o", tmp_path / "whole", "--no-draw", code=2)
    out, together = tmp_path / "out", []
    for number in (1, 2, 3, 4):
        # The broken photo is in the last one.
        run("detect", many, "-o", out, "--shard", f"{number}/4", code=2 if number == 4 else 0)
        together += rows_of(out / f"detections-{number}-of-4.json")
    together.sort(key=lambda row: row["image_id"])
    assert together == rows_of(tmp_path / "whole" / "detections.json")
    assert len(list(out.glob("*.png"))) == PHOTOS - 1
    # The results' folder lies among the photos: what one shard draws is no photo to the next.
    inside = tmp_path / "photos"
    shutil.copytree(many, inside, ignore=shutil.ignore_patterns("11.png"))
    images = []
    for number in (1, 2):
        run("detect", inside, "-o", inside / "out", "--shard", f"{number}/2")
        images += [row["file_name"] for row in rows_of(inside / "out" / f"detections-{number}-of-2.json")]
    assert images and not [name for name in images if "out" in pathlib.Path(name).parts]
    run("detect", many / "00.png", "-o", tmp_path / "few", "--shard", "2/2")
    assert rows_of(tmp_path / "few" / "detections-2-of-2.json") == []


@pytest.mark.parametrize("shard", ["0/4", "5/4", "3", "a/b", "1/0"])
def test_a_shard_that_is_none(many, tmp_path, shard):
    assert f"--shard is {shard}; give a part" in run("detect", many, "-o", tmp_path, "--shard", shard, code=2)


def test_photos_are_let_go_of(many, tmp_path, bright, monkeypatch):
    """However many there are, those held at a time are a few batches: counted at every read."""
    alive, most = weakref.WeakSet(), []

    class Pixels(np.ndarray):
        __hash__ = object.__hash__

    def read(path):
        image = np.full((8, 12, 3), 200, np.uint8).view(Pixels)
        alive.add(image)
        most.append(len(alive))
        return image

    monkeypatch.setattr(photo, "read", read)
    monkeypatch.setattr(photo, "find", lambda arguments: [many / f"{i}.png" for i in range(400)])
    output = run("detect", "x", "-o", tmp_path / "out", "--no-draw")
    assert "400 objects" in output and len(most) == 400
    assert max(most) <= 2 * cli_detect.BATCH + cli_detect.AHEAD + 1


def test_photos_are_read_as_they_are_needed():
    asked = []

    def endless():
        while True:
            asked.append(1)
            yield np.zeros((4, 4, 3), np.uint8)

    reading = photo.read_ahead(endless(), ahead=3)
    for count in range(1, 20):
        assert next(reading).shape == (4, 4, 3)
        assert len(asked) == count + 3
    reading.close()


def test_what_was_drawn_is_neither_drawn_over_nor_looked_at(many, tmp_path, bright):
    folder = tmp_path / "photos"
    folder.mkdir()
    for index in (20, 21):
        (folder / f"{index}.png").write_bytes((many / f"{index}.png").read_bytes())
    run("detect", folder, "-o", folder / "found")
    first = rows_of(folder / "found" / "detections.json")
    assert len(first) == 2
    for option in ("--resume", "--overwrite"):
        run("detect", folder, "-o", folder / "found", option)
        assert rows_of(folder / "found" / "detections.json") == first
    run("detect", folder, "-o", tmp_path / "again")
    assert len(rows_of(tmp_path / "again" / "detections.json")) == 2
    (folder / "found" / "detections.json").unlink()
    (folder / "found" / "detections.progress").unlink()
    output = run("detect", folder / "20.png", "-o", folder / "found", code=2)
    assert "20.png exists; give another --out, or --overwrite" in output


def test_photos_in_the_results_folder_are_looked_at_and_never_drawn_over(many, tmp_path, bright):
    folder, source = tmp_path / "photos", (many / "20.png").read_bytes()
    for name in ("20.png", "day/21.png"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(source)
    for options in ([], ["--resume"], ["--overwrite"], ["--shard", "1/1"]):
        output = run("detect", folder, "-o", folder, *options, code=2)
        assert "20.png: is one of the photos, and would be drawn over" in output
    for options in ([], ["--resume"], ["--overwrite"]):
        run("detect", folder, "-o", folder, "--no-draw", *options)
        assert [row["file_name"] for row in rows_of(folder / "detections.json")] == [
            str(folder / name) for name in ("20.png", "day/21.png")
        ]
    assert (folder / "20.png").read_bytes() == source
    # Whatever else has the name of a drawing is not ours to replace.
    run("detect", many / "21.png", "-o", tmp_path / "out")
    (tmp_path / "out" / "21.png").write_bytes(source)
    assert "21.png exists, and was not drawn by this command" in run(
        "detect", many / "21.png", "-o", tmp_path / "out", "--overwrite", code=2
    )


def test_it_does_not_go_on_with_another_model_of_the_same_name(many, tmp_path, bright):
    (tmp_path / "best.tflite").write_bytes(b"one")
    again = ["detect", many / "20.png", "-o", tmp_path / "out", "-m", tmp_path / "best.tflite"]
    run(*again)
    run(*again, "--resume")
    (tmp_path / "best.tflite").write_bytes(b"another")
    assert "was begun with weights (sha256)" in run(*again, "--resume", code=2)
    assert "give one of them" in run(*again, "--resume", "--overwrite", code=2)


def test_what_is_no_detector_is_told_as_everywhere(many, tmp_path):
    given = ["detect", many / "20.png", "-o", tmp_path / "out", "-m"]
    assert "20.png: not a detector that can be loaded; give" in run(*given, many / "20.png", code=2)
    assert "gone.keras: no such file" in run(*given, "gone.keras", code=2)


def test_drawings_of_jpegs_are_known_again(many, tmp_path, bright):
    Image.open(many / "20.png").save(tmp_path / "a.jpg")
    run("detect", tmp_path / "a.jpg", "-o", tmp_path / "out")
    assert Image.open(tmp_path / "out" / "a.jpg").size == (12, 8)
    said = run("detect", tmp_path / "out", "-o", tmp_path / "out", code=2)
    assert "all of the photos were drawn by" in said
