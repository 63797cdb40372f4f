"""Batches in which pictures are made of several photos: every pixel, box and weight is where it belongs."""

import dataclasses

import numpy as np
import pytest
from batches import epoch, model, same
from PIL import Image

from kerasdet.data.augment import Augment
from kerasdet.data.dataset import Dataset
from kerasdet.data.sample import Sample

COLOURS = np.array([[200, 0, 0], [0, 200, 0], [0, 0, 200], [100, 100, 0], [0, 100, 100]], np.uint8)
WHOLE = dataclasses.replace(Augment.none(), flip=0.5, aspect=1.3)


@pytest.fixture
def colours(tmp_path):
    """Five photos of one colour and different sizes, each labelled as a whole."""
    samples = []
    for number, colour in enumerate(COLOURS):
        height, width = 40 + 10 * number, 90 - 10 * number
        Image.new("RGB", (width, height), tuple(colour.tolist())).save(tmp_path / f"{number}.png")
        box = np.array([[0, 0, width, height]], np.float32)
        samples.append(Sample(str(tmp_path / f"{number}.png"), box, np.array([number], np.int32)))
    return Dataset(samples, tuple("rgbyc"))


def test_mixup_lays_photos_over_one_another_and_counts_objects_by_their_share(colours):
    """By hand: 90x40 over 80x50 on a canvas of 90x50; each counts a half."""
    pair = colours[:2]
    mixed = dataclasses.replace(Augment.none(), mixup=np.inf)
    (images, targets), = epoch(pair.batches(2, model(pair, image_size=90), training=True, augment=mixed))
    for image, labels, boxes, weights in zip(
        images, targets["labels"], targets["boxes"], targets["weights"], strict=True
    ):
        assert sorted(labels[:2]) == [0, 1] and (labels[2:] == -1).all()
        np.testing.assert_allclose(weights[:2], 0.5)
        assert not weights[2:].any()
        by_label = dict(zip(labels[:2].tolist(), boxes[:2].tolist(), strict=True))
        np.testing.assert_allclose(by_label[0], [0, 0, 90, 72], rtol=1e-5)
        np.testing.assert_allclose(by_label[1], [0, 0, 80, 90], rtol=1e-5)
        np.testing.assert_allclose(image[30, 30], [100, 100, 0], atol=1)
        # Where one of them ends, mean colour takes its place.
        np.testing.assert_allclose(image[30, 85], [100 + 62, 58, 52], atol=1)
        np.testing.assert_allclose(image[85, 30], [62, 100 + 58, 52], atol=1)


def test_shares_follow_a_beta_distribution():
    rng = np.random.default_rng(0)
    shares = np.array([Augment(mixup=1.5).share(rng) for _ in range(4000)])
    assert shares.mean() == pytest.approx(0.5, abs=0.02)
    assert shares.var() == pytest.approx(1 / 16, rel=0.1)  # 1 / (4 (2 a + 1))


def test_mixed_weights_sum_to_one(colours):
    batches = colours.batches(5, model(colours), training=True, augment=Augment(zoom=(1, 1), mixup=1.5))
    for _, targets in epoch(batches):
        np.testing.assert_allclose(targets["weights"].sum(1), 1, rtol=1e-5)
        assert len(np.unique(targets["weights"])) > 5


def test_a_share_of_the_pictures_are_mosaics_and_no_others_are_mixed_up(colours):
    """A mosaic of four photos counts them whole; of the others, laid over one another, each counts a half."""
    augment = dataclasses.replace(WHOLE, mosaic=0.5, mixup=np.inf)
    counts = []
    for number in range(24):
        (_, targets), = epoch(
            colours.batches(5, model(colours), training=True, augment=augment, epoch=number)
        )
        for labels, weights in zip(targets["labels"], targets["weights"], strict=True):
            counts.append((labels >= 0).sum())
            np.testing.assert_allclose(weights[labels >= 0], {4: 1.0, 2: 0.5}[counts[-1]])
    assert 0.35 < np.mean(np.array(counts) == 4) < 0.65


def test_the_tiles_of_a_mosaic_are_where_their_labels_say(colours):
    """Each photo is its own label throughout, so every pixel can be checked."""
    augment = dataclasses.replace(WHOLE, mosaic=1.0)
    areas = []
    for number in range(8):
        (images, targets), = epoch(
            colours.batches(5, model(colours), training=True, augment=augment, epoch=number)
        )
        for image, labels, boxes in zip(images, targets["labels"], targets["boxes"], strict=True):
            assert (labels >= 0).sum() == 4
            covered = np.zeros((64, 64), int)
            corners = np.rint(boxes[:4]).astype(int)
            for label, (left, top, right, bottom) in zip(labels[:4], corners, strict=True):
                # A photo's outermost pixels fade into what lies beyond it.
                assert (image[top + 1 : bottom - 1, left + 1 : right - 1] == COLOURS[label]).all()
                covered[top:bottom, left:right] += 1
                areas.append((right - left) * (bottom - top))
            assert (covered == 1).all()
    # The point where they meet lies in the middle half.
    assert min(areas) >= 16 * 16 and max(areas) <= 48 * 48 and len(set(areas)) > 20


def test_pixels_and_boxes_move_together_in_a_mosaic(tmp_path):
    pixels = np.zeros((80, 120, 3), np.uint8)
    pixels[30:60, 40:80] = 255
    Image.fromarray(pixels).save(tmp_path / "a.png")
    box = np.array([[40, 30, 80, 60]], np.float32)
    data = Dataset([Sample(str(tmp_path / "a.png"), box, np.zeros(1, np.int32))], ("box",)).repeat(8)
    augment = dataclasses.replace(WHOLE, mosaic=1.0)
    (images, targets), = epoch(data.batches(8, model(data, image_size=128), training=True, augment=augment))
    assert (targets["labels"] == 0).sum() > 20
    for image, boxes in zip(images, targets["boxes"], strict=True):
        inside = np.zeros((128, 128), bool)
        for left, top, right, bottom in np.rint(boxes).astype(int):
            inside[top:bottom, left:right] = True
        # Edges may be a pixel off.
        assert (inside != (image.min(-1) > 127)).mean() < 0.02


def test_a_photo_without_the_part_is_mixed_with_one_that_has_it(one_photo):
    data = one_photo([[0, 0, 50, 50]])
    with_head = dataclasses.replace(
        data[0], parts=np.array([[[10, 0, 20, 10]]], np.float32), part_weights=np.ones((1, 1), np.float32)
    )
    without = dataclasses.replace(with_head, part_weights=np.zeros((1, 1), np.float32))
    data = Dataset([with_head, without], data.classes, ("head",))
    augment = dataclasses.replace(Augment.none(), mosaic=1.0)
    seen = set()
    for number in range(8):
        (_, targets), = epoch(
            data.batches(
                2, model(data, parts=("tail", "head")), training=True, augment=augment, epoch=number
            )
        )
        heads = targets["part_weights"][..., 1]
        assert targets["parts"].shape[2:] == (2, 4) and not targets["part_weights"][..., 0].any()
        seen.update(heads[targets["labels"] == 0].tolist())
        boxes, parts = targets["boxes"][heads > 0], targets["parts"][..., 1, :][heads > 0]
        assert (parts[:, :2] >= boxes[:, :2] - 1e-3).all() and (parts[:, 2:] <= boxes[:, 2:] + 1e-3).all()
    assert seen == {0, 1}


@pytest.mark.parametrize("options", [{"threads": 5}, {"workers": 2}])
def test_the_seed_alone_decides_who_is_mixed_with_whom(shapes, options):
    augment = Augment(mixup=1.5, mosaic=0.5)

    def make(**options):
        return epoch(shapes.batches(6, model(shapes), training=True, augment=augment, **options))

    assert same(make(), make(**options))
    assert not same(make(), make(seed=1))


def test_the_last_epochs_see_photos_as_they_are(shapes):
    augment = Augment(mixup=1.5, mosaic=0.5)

    def make(number, augment=augment, **options):
        options = {"training": True, "augment": augment, "epoch": number, "max_boxes": 40} | options
        return epoch(shapes.batches(6, model(shapes), **options))

    assert same(make(1, mix_until=2), make(1)) and not same(make(2, mix_until=2), make(2))
    for (image, last), (plain, alone) in zip(make(2, mix_until=2), make(2, Augment()), strict=True):
        assert same(image, plain)
        assert all(same(last[key], alone[key]) for key in ("boxes", "labels", "weights"))


def test_an_epoch_may_be_mixed_in_its_first_batches_alone(shapes):
    options = {
        "training": True, "augment": dataclasses.replace(Augment.none(), mosaic=1.0), "max_boxes": 40,
    }
    batches = shapes.batches(4, model(shapes), mix_until=1, **options)
    batches.begin(model, steps=len(batches) // 2)
    half, mixed = batches.mixes(0), epoch(shapes.batches(4, model(shapes), **options))
    plain = epoch(shapes.batches(4, model(shapes), **options | {"augment": Augment.none()}))
    assert 0 < half < len(mixed)
    for number, (images, _) in enumerate(epoch(batches)):
        assert same(images, (mixed if number < half else plain)[number][0])


def test_statistics_are_measured_on_photos_as_the_last_epochs_see_them(shapes):
    mixing = {"training": True, "augment": Augment(mosaic=1.0), "max_boxes": 40}
    plain = shapes.batches(8, model(shapes), training=True, max_boxes=40, epoch=3)
    assert same(shapes.batches(8, model(shapes), mix_until=3, **mixing).some_images(), [x for x, _ in plain])


def test_nothing_to_leave_out_is_refused(shapes):
    with pytest.raises(ValueError, match="mix_until is 3, but nothing is mixed; give augment="):
        shapes.batches(4, model(shapes), training=True, mix_until=3)


@pytest.mark.parametrize("options", [{"mixup": -1.0}, {"mosaic": 1.5}])
def test_shares_that_make_no_sense_are_refused(options):
    with pytest.raises(ValueError, match="(mixup is -1.0|mosaic is 1.5); give"):
        Augment(**options)
