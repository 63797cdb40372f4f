"""The presets that are shipped, on the photos that scikit-image ships."""

import numpy as np
import pytest

import kerasdet
from kerasdet import zoo
from kerasdet.card import Card
from kerasdet.deploy.litert import iou_matrix

SHELF = sorted(path.parent for path in zoo.shelves()[-1].glob("*/card.json"))
# Of each photo an object that is beyond doubt, boxed by hand.
OBJECTS = {"person": ("astronaut", [30, 0, 450, 512]), "cat": ("chelsea", [0, 0, 410, 300]),
           "face": ("astronaut", [172, 58, 272, 196])}


def preset_and_photo(folder):
    photos = pytest.importorskip("skimage.data")
    name = next(name for name in ("cat", "face", "person") if name in Card.read(folder).classes)
    picture, box = OBJECTS[name]
    return kerasdet.load(folder), np.asarray(getattr(photos, picture)()), name, np.array([box], np.float32)


@pytest.mark.parametrize("folder", SHELF, ids=lambda folder: folder.name)
def test_a_preset_finds_what_is_there(folder):
    model, photo, name, box = preset_and_photo(folder)
    if getattr(model, "background", True):
        found = model.detect(photo, score=0.3)
    else:
        # It says what a photo shows, one thing, and where.
        left, bottom = 80, 260
        sizes = tuple(model.image_size + 32 * step for step in range(6))
        found = model.localise(photo[:bottom, left:380], sizes=sizes)
        found.boxes[:, ::2] += left
    assert found.names[0] == name, "the surest box"
    assert iou_matrix(found.boxes[:1], box)[0, 0] > 0.5


@pytest.mark.slow
@pytest.mark.parametrize("folder", SHELF, ids=lambda folder: folder.name)
def test_keras_litert_and_mediapipe_find_the_same(folder, tmp_path):
    """Within 2 px of the square and .02 of the score; on the photo, and on one of 3000 px."""
    cv2 = pytest.importorskip("cv2")
    from PIL import Image

    from kerasdet import tour

    model, photo, _, _ = preset_and_photo(folder)
    large = cv2.resize(photo, None, fx=3000 / photo.shape[1], fy=3000 / photo.shape[1])
    paths = []
    for number, picture in enumerate((photo, large)):
        paths.append(str(tmp_path / f"{number}.png"))
        Image.fromarray(picture).save(paths[-1])
    file = tmp_path / "preset.tflite"
    model.export(file, check_photos=paths)
    phone = kerasdet.load(file)
    pixels, score, boxes = tour.agreement(phone, file, paths)
    assert boxes and pixels <= tour.MAX_PIXELS and score <= tour.MAX_SCORE
    for path in paths:
        ours, theirs = (each.detect(path, score=0.2) for each in (model, phone))
        assert ours.names == theirs.names
        scale = model.image_size / np.array([*ours.photo.shape[1::-1]] * 2)
        np.testing.assert_allclose(theirs.boxes * scale, ours.boxes * scale, atol=0.5)
        np.testing.assert_allclose(theirs.scores, ours.scores, atol=1e-3)
