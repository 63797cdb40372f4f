"""The presets that are shipped, on the photos that scikit-image ships."""

import numpy as np
import pytest
from needed import needed

import kerasdet
from kerasdet import zoo
from kerasdet.deploy.litert import iou_matrix
from kerasdet.training.recipe import read

ZOO = zoo.shelves()[-1]
SHELF = sorted(path.parent for path in ZOO.glob("*/card.json"))
# On each photo an object that is beyond doubt, boxed by hand; by the photo's height and width.
OBJECTS = {
    (512, 512, "person"): [30, 0, 450, 512], (300, 451, "cat"): [0, 0, 410, 300],
    (512, 512, "face"): [172, 58, 272, 196], (260, 300, "face"): [92, 58, 192, 196],
}


@pytest.fixture(scope="module")
def look():
    needed("skimage")
    return read(ZOO / "publish.py").look


@pytest.mark.parametrize("folder", SHELF, ids=lambda folder: folder.name)
def test_a_preset_finds_what_is_there(folder, look, untraced):
    _, found = look(kerasdet.load(folder))
    box = np.array([OBJECTS[*found.photo.shape[:2], found.names[0]]], np.float32)
    assert iou_matrix(found.boxes[:1], box)[0, 0] > 0.5, "the surest box"


@pytest.mark.slow
@pytest.mark.parametrize("folder", SHELF, ids=lambda folder: folder.name)
def test_keras_litert_and_mediapipe_find_the_same(folder, look, tmp_path):
    """Within 2 px of the square and .02 of the score; on the photo, and on one of 3000 px."""
    cv2 = needed("cv2")
    from PIL import Image

    from kerasdet import tour

    model = kerasdet.load(folder)
    photo = look(model)[1].photo
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
