"""Drawn sets: repeatable, and boxes that are where the drawing is."""

import numpy as np
import pytest
from PIL import Image

from kerasdet.data import figures, load, scenes


def pixels(data):
    return [np.asarray(Image.open(sample.path)) for sample in data]


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    return scenes.write_scenes(tmp_path_factory.mktemp("scenes"), 40, size=(96, 96), seed=1)


def test_scenes_hold_people_with_heads_and_some_hold_none(people):
    assert people.classes == ("person",) and people.parts == ("head",) and len(people) == 40
    counts = [len(sample.boxes) for sample in people]
    assert min(counts) == 0 and max(counts) >= 4
    assert any(len(sample.ignore) for sample in people)  # somebody is hidden
    for sample in people:
        assert (sample.width, sample.height) == (96, 96)
        head, body = sample.parts[:, 0], sample.boxes
        seen = sample.part_weights[:, 0] > 0
        # A head lies within its body's box, in its upper third.
        assert (head[seen, :2] >= body[seen, :2] - 0.1).all()
        assert (head[seen, 2:] <= body[seen, 2:] + 0.1).all()
        assert (head[seen, 3] < body[seen, 1] + (body[seen, 3] - body[seen, 1]) / 3).all()


def test_the_same_seed_draws_the_same_scenes(tmp_path):
    first = scenes.write_scenes(tmp_path / "a", 3, size=(64, 48), seed=5)
    again = scenes.write_scenes(tmp_path / "b", 5, size=(64, 48), seed=5)
    other = scenes.write_scenes(tmp_path / "c", 3, size=(64, 48), seed=6)
    for one, two in zip(first, again[:3], strict=True):
        np.testing.assert_array_equal(one.boxes, two.boxes)
    assert all(np.array_equal(a, b) for a, b in zip(pixels(first), pixels(again[:3]), strict=True))
    assert not any(np.array_equal(a, b) for a, b in zip(pixels(first), pixels(other), strict=True))


def test_train_and_val_of_one_folder_differ(tmp_path):
    train = scenes.write_scenes(tmp_path, 3, size=(64, 48), seed=5)
    val = scenes.write_scenes(tmp_path, 3, size=(64, 48), seed=5, split="val")
    assert len(load(tmp_path, split="train")) == len(load(tmp_path, split="val")) == 3
    assert not any(np.array_equal(a, b) for a, b in zip(pixels(train), pixels(val), strict=True))


def test_a_figure_s_box_holds_all_of_it_and_nothing_more():
    for seed in range(8):
        figure = figures.draw_person(np.random.default_rng(seed), 200, (300, 400))
        canvas = Image.new("L", (600, 600))
        canvas.paste(figure.body, figure.corner, figure.body)
        rows, columns = np.nonzero(np.asarray(canvas))
        found = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
        np.testing.assert_allclose(figure.box(figure.body), found / figures.SUPERSAMPLING)
        assert abs(found[3] - 400) <= 4 and abs(found[3] - found[1] - 200) <= 10


def test_shapes_fill_their_boxes(tmp_path):
    data = scenes.write_shapes(tmp_path, 24, seed=2)
    assert data.classes == ("circle", "square", "triangle")
    labels = np.concatenate([sample.labels for sample in data])
    assert set(labels) == {0, 1, 2} and any(len(sample.boxes) == 0 for sample in data)
    expected = {0: np.pi / 4, 1: 1.0, 2: 0.5}
    for sample, image in zip(data, pixels(data), strict=True):
        for (x1, y1, x2, y2), label in zip(sample.boxes, sample.labels, strict=True):
            crop = image[round(y1) : round(y2), round(x1) : round(x2)].astype(int)
            centre = crop[len(crop) // 2 : len(crop) // 2 + 2, crop.shape[1] // 2]
            near = np.abs(crop - centre.mean(axis=0)).max(axis=2) < 40
            # Background of a like colour may add to it, the shape itself must be there.
            assert near.mean() > expected[label] - 0.2


def test_what_cannot_be_drawn(tmp_path):
    with pytest.raises(ValueError, match="n=0"):
        scenes.write_scenes(tmp_path, 0)
    with pytest.raises(ValueError, match="size="):
        scenes.write_shapes(tmp_path, 1, size=(320, 8))
