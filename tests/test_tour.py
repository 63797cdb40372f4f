"""`make demo`: what it takes for agreement, and when it fails."""

import numpy as np
import pytest
from needed import needed

from kerasdet import tour
from kerasdet.deploy import mediapipe
from kerasdet.detections import Detections

CLASSES = "cat", "dog"


def found(*rows):
    """Rows of x1, y1, x2, y2, score, label on a photo of 100 x 50 px."""
    rows = np.array(rows, np.float32).reshape(-1, 6)
    photo = np.zeros((50, 100, 3), np.uint8)
    return Detections(rows[:, :4], rows[:, 4], rows[:, 5].astype(int), CLASSES, photo=photo)


def agreement(monkeypatch, litert, phone):
    class Phone:
        image_size = 200

        def detect(self, photo, score):
            return litert

    class MediaPipe:
        def __init__(self, path, score):
            pass

        def __enter__(self):
            return self

        def __exit__(self, *error):
            return None

        def detect(self, photos):
            return [phone]

    monkeypatch.setattr(mediapipe, "MediaPipeDetector", MediaPipe)
    return tour.agreement(Phone(), "x.tflite", ["a.jpg"])


CAT, DOG = (10, 10, 30, 30, 0.9, 0), (50, 10, 90, 40, 0.5, 1)
LOST = float("inf"), float("inf")


def test_boxes_of_both_are_compared_with_each_other(monkeypatch):
    # 1.5 px of the photo's width are 3 of the square's, of which half a pixel, 1, is rounding.
    moved = (11.5, 10, 30, 30, 0.88, 0)
    pixels, score, boxes = agreement(monkeypatch, found(CAT, DOG), found(moved, DOG))
    assert (pixels, boxes) == (pytest.approx(2), 4) and score == pytest.approx(0.02)
    faint = (0, 0, 5, 5, 0.1, 1)
    assert agreement(monkeypatch, found(CAT), found(CAT, faint))[2] == 2


@pytest.mark.parametrize(("litert", "phone"), [((CAT, DOG), (CAT,)), ((CAT,), (CAT, DOG)), ((CAT,), ())])
def test_a_box_that_one_does_not_find_is_infinitely_far(monkeypatch, litert, phone):
    assert agreement(monkeypatch, found(*litert), found(*phone))[:2] == LOST


def test_a_box_of_another_class_is_another_box(monkeypatch):
    assert agreement(monkeypatch, found(CAT), found((*CAT[:5], 1)))[:2] == LOST


def test_what_it_complains_of():
    assert tour.complaints(0.3, 0.5, (1.9, 0.01, 40)) == tour.complaints(0.3, 0.5, None) == []
    assert tour.complaints(0.5, 0.5, (1.9, 0.01, 40)) == ["fine-tuning did not raise AP"]
    for wrong in ((2.1, 0.01, 40), (1.9, 0.03, 40), (0.0, 0.0, 0), (*LOST, 3)):
        (text,) = tour.complaints(0.3, 0.5, wrong)
        assert "LiteRT and MediaPipe disagree" in text


def test_what_mediapipe_lacks_is_known_beforehand(monkeypatch):
    def only(library):
        if "EGL" in library:
            raise OSError(f"{library}: cannot open shared object file")

    monkeypatch.setattr(mediapipe.ctypes, "CDLL", only)
    for platform, missing in (("linux", ["libegl1"]), ("darwin", []), ("win32", [])):
        monkeypatch.setattr(mediapipe.sys, "platform", platform)
        assert mediapipe.missing_packages() == missing


def test_a_library_that_the_system_lacks_is_named(tmp_path, monkeypatch):
    vision = needed("mediapipe.tasks.python").vision

    def lacks(options):
        raise OSError("libGLESv2.so.2: cannot open shared object file")

    monkeypatch.setattr(vision.ObjectDetector, "create_from_options", lacks)
    monkeypatch.setattr("kerasdet.deploy.metadata.read_metadata", lambda path: {"classes": ["cat"]})
    with pytest.raises(OSError, match="apt-get install libgles2 libegl1"):
        mediapipe.MediaPipeDetector(tmp_path / "x.tflite")
