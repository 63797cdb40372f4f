"""The loader: what a batch holds, and that the seed alone decides it."""

import dataclasses
import os
import warnings

import numpy as np
import pytest
from batches import epoch, model, same
from PIL import Image

from kerasdet import outlines
from kerasdet.data import loader
from kerasdet.data.augment import Augment
from kerasdet.data.dataset import Dataset
from kerasdet.data.sample import Sample
from kerasdet.detections import Detections
from kerasdet.distribution import Share
from kerasdet.metrics import coco_metrics

# === What a batch holds ===


def test_batch_by_hand(one_photo):
    data = one_photo([[10, 20, 60, 50], [0, 0, 10, 10]], ignore=np.array([[50, 0, 100, 25]], np.float32))
    (images, targets), = epoch(data.batches(4, model(data)))
    assert images.shape == (1, 64, 64, 3) and images.dtype == np.uint8
    assert targets["boxes"].shape == (1, 8, 4) and targets["boxes"].dtype == np.float32
    np.testing.assert_allclose(targets["boxes"][0, :2], [[6.4, 25.6, 38.4, 64], [0, 0, 6.4, 12.8]], rtol=1e-6)
    assert not targets["boxes"][0, 2:].any()
    assert targets["labels"].tolist() == [[0, 0] + [-1] * 6] and targets["labels"].dtype == np.int32
    assert targets["weights"].tolist() == [[1, 1] + [0] * 6]
    np.testing.assert_allclose(targets["ignore"][0, 0], [32, 0, 64, 32])
    assert not targets["ignore"][0, 1:].any()
    assert set(targets) == {"boxes", "labels", "weights", "ignore"}


def test_letterbox_models_get_letterboxed_photos(one_photo):
    data = one_photo([[0, 0, 100, 50]])
    (images, targets), = epoch(data.batches(1, model(data, resize="letterbox")))
    np.testing.assert_allclose(targets["boxes"][0, 0], [0, 16, 64, 48])
    assert (images[0, :15] == (124, 116, 104)).all()


def test_parts_are_laid_out_as_the_model_has_them(one_photo):
    data = one_photo([[0, 0, 50, 50]])
    sample = dataclasses.replace(
        data[0], parts=np.array([[[10, 0, 20, 10], [10, 40, 20, 50]]], np.float32),
        part_weights=np.array([[1, 0.5]], np.float32),
    )
    data = Dataset([sample], data.classes, ("head", "foot"))
    (_, targets), = epoch(data.batches(1, model(data, parts=("foot", "tail", "head"), image_size=100)))
    assert targets["parts"].shape == (1, 8, 3, 4)
    np.testing.assert_allclose(targets["parts"][0, 0], [[10, 80, 20, 100], [0, 0, 0, 0], [10, 0, 20, 20]])
    np.testing.assert_allclose(targets["part_weights"][0, 0], [0.5, 0, 1])
    assert not targets["part_weights"][0, 1:].any()


def test_photos_without_objects(one_photo):
    data = one_photo([])
    for training in (False, True):
        (images, targets), = epoch(data.batches(1, model(data), training=training))
        assert images.any()
        assert (targets["labels"] == -1).all() and not targets["weights"].any()


def test_a_hundred_objects_of_a_photo_are_learned_where_nothing_is_said(one_photo):
    data = one_photo([[0, 0, i % 60 + 20, 10 + i // 60] for i in range(120)])
    with pytest.warns(UserWarning, match="more than max_boxes=100 .*up to 120"):
        batches = data.batches(1, model(data))
    (_, targets), = epoch(batches)
    assert targets["boxes"].shape[1] == 100 == (targets["labels"] >= 0).sum()


def test_more_objects_than_max_boxes_warn_and_lose_the_smallest(one_photo):
    boxes = [[0, 0, 2 * i + 2, 10] for i in range(12)]
    data = one_photo(boxes)
    with pytest.warns(UserWarning, match=r"1 photos have more than max_boxes=5 .*up to 12"):
        batches = data.batches(1, model(data), max_boxes=5)
    (_, targets), = epoch(batches)
    widths = np.sort(targets["boxes"][0, :, 2]) * 100 / 64
    np.testing.assert_allclose(widths, [16, 18, 20, 22, 24], rtol=1e-5)
    # What is left out is no background.
    ignored = targets["ignore"][0]
    assert (ignored[:, 2] > 0).sum() == 7
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data.batches(1, model(data))


def test_every_ignore_region_is_kept(one_photo):
    regions = np.array([[i % 90, 0, i % 90 + 5, 10] for i in range(150)], np.float32)
    data = one_photo([[0, 0, 50, 50]], ignore=regions)
    (_, targets), = epoch(data.batches(1, model(data)))
    assert (targets["ignore"][0, :, 2] > 0).sum() == 150


@pytest.mark.parametrize("batch_size", [1, 2])
def test_a_mosaic_of_one_photo_several_times_keeps_its_ignore_regions(one_photo, batch_size):
    """In small batches a photo has fewer than three others."""
    regions = np.array([[i % 90, 0, i % 90 + 9, 80] for i in range(60)], np.float32)
    crowded = one_photo([[0, 0, 50, 50]], ignore=regions)
    data = crowded + one_photo([[0, 0, 50, 50]])
    for number in range(4):
        batches = data.batches(
            batch_size, model(data), training=True, augment=Augment(mosaic=1.0), epoch=number
        )
        placed = []
        targets = batches.prepare._targets
        batches.prepare._targets = lambda said, placed=placed, targets=targets: (
            placed.append(len(said["ignore"])) or targets(said)
        )
        kept = np.concatenate([said["ignore"][..., 2] > 0 for _, said in epoch(batches)])
        assert kept.shape[1] >= max(placed) > 100


# === Lengths and epochs ===


def test_length_and_last_batch(shapes):
    watching = shapes.batches(6, model(shapes))
    assert len(watching) == 3 and [len(x) for x, _ in epoch(watching)] == [6, 6, 4]
    training = shapes.batches(6, model(shapes), training=True)
    assert len(training) == 2 and [len(x) for x, _ in epoch(training)] == [6, 6]
    few = shapes[:4].batches(6, model(shapes), training=True)
    assert len(few) == 1 and [len(x) for x, _ in epoch(few)] == [4]


def test_an_epoch_shows_every_photo_once_in_an_order_of_its_own(shapes):
    options = {"training": True, "augment": Augment.none()}
    plain = np.concatenate([x for x, _ in epoch(shapes.batches(4, model(shapes)))])
    order = []
    for number in (0, 1, 2):
        images = np.concatenate(
            [x for x, _ in epoch(loader.batches(shapes, 4, model(shapes), epoch=number, **options))]
        )
        order.append([next(i for i, p in enumerate(plain) if np.array_equal(p, x)) for x in images])
        assert sorted(order[-1]) == list(range(16))
    assert len({tuple(o) for o in order}) == 3


def test_endless_batches_are_the_epochs_one_after_the_other(shapes):
    make = lambda number: shapes.batches(8, model(shapes), training=True, epoch=number)  # noqa: E731
    endless = iter(make(3).endless())
    found = [next(endless) for _ in range(6)]
    assert same(found, epoch(make(3)) + epoch(make(4)) + epoch(make(5)))


def test_endless_batches_go_on_from_their_state(shapes):
    batches = shapes.batches(8, model(shapes), training=True)
    first = iter(batches.endless())
    [next(first) for _ in range(3)]
    state, rest = first.get_state(), [next(first) for _ in range(2)]
    second = iter(batches.endless())
    second.set_state(state)
    assert same([next(second) for _ in range(2)], rest)


# === The seed decides ===


def test_same_seed_same_batches(shapes):
    make = lambda **options: epoch(shapes.batches(8, model(shapes), training=True, **options))  # noqa: E731
    one = make(seed=1)
    assert same(one, make(seed=1))
    assert not same(one, make(seed=2))
    assert not same(one, make(seed=1, epoch=1))


@pytest.mark.parametrize("options", [{"threads": 1}, {"threads": 5}, {"workers": 2}])
def test_threads_and_workers_do_not_change_the_batches(shapes, options):
    make = lambda **options: epoch(shapes.batches(6, model(shapes), training=True, **options))  # noqa: E731
    assert same(make(), make(**options))


@pytest.mark.parametrize(("cores", "threads"), [(1, 2), (5, 5), (64, 16)])
def test_threads_are_as_many_as_cores_from_2_to_16(shapes, monkeypatch, cores, threads):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(cores)), raising=False)
    assert shapes.batches(4, model(shapes)).threads == loader._threads() == threads
    # Where a system does not tell which cores a process may use.
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: cores)
    assert loader._threads() == threads


def test_augmentation_is_drawn_anew_for_every_epoch(one_photo):
    data = one_photo([[10, 10, 60, 40]])
    views = [epoch(data.batches(1, model(data), training=True, epoch=e))[0][0] for e in range(3)]
    assert not same(views[0], views[1]) and not same(views[1], views[2])


# === Squares of several sizes ===


def sides(batches):
    return [images.shape[1] for images, _ in batches]


def test_sizes_change_every_so_many_batches_and_the_first_stands_alone(shapes):
    batches = shapes.repeat(4).batches(4, model(shapes), training=True, sizes=(32, 64, 96), every=5)
    found = sides(epoch(batches))
    assert len(found) == 16 and set(found) <= {32, 64, 96}
    assert [i for i in range(1, 16) if found[i] != found[i - 1]] == [1, 6, 11]
    # Another epoch, another seed: other sizes in time.
    others = [batches.sides(number) for number in range(8)]
    assert len({tuple(other) for other in others}) > 4


@pytest.mark.parametrize("photos", [1, 3])  # the third fills no batch, and is left out
@pytest.mark.parametrize("seed", [0, 1])
def test_epochs_of_one_batch_differ_in_size_from_one_to_the_next(one_photo, seed, photos):
    """Keras looks at two batches, and takes a size that both have for everyone's."""
    data = one_photo([[10, 20, 60, 50]]).repeat(photos)
    batches = loader.batches(data, 2, model(data), training=True, sizes=(32, 64, 96), every=10, seed=seed)
    found = [batches.sides(epoch) for epoch in range(12)]
    assert all(len(each) == 1 for each in found) and len({each[0] for each in found}) == 3
    assert all(one != other for one, other in zip(found, found[1:], strict=False))
    assert [images.shape[1] for images, _ in epoch(batches)] == found[0]


def test_boxes_are_those_of_the_batchs_own_square(one_photo):
    data = one_photo([[10, 20, 60, 50]]).repeat(6)
    batches = loader.batches(
        data, 2, model(data), training=True, sizes=(32, 96), every=1, augment=Augment.none()
    )
    found = epoch(batches)
    assert sorted(set(sides(found))) == [32, 96]
    for images, targets in found:
        side = images.shape[1]
        assert images.shape == (2, side, side, 3)
        expected = np.array([0.1, 0.4, 0.6, 1.0]) * side
        np.testing.assert_allclose(targets["boxes"][:, 0], [expected, expected], rtol=1e-5)


@pytest.mark.parametrize("options", [{"threads": 5}, {"workers": 2}])
def test_the_seed_alone_decides_the_sizes(shapes, options):
    def make(**options):
        return epoch(shapes.batches(4, model(shapes), training=True, sizes=(32, 64), every=2, **options))

    assert same(make(epoch=1), make(epoch=1, **options))


def test_sizes_go_on_from_a_state_as_they_would_have_gone(shapes):
    batches = shapes.batches(4, model(shapes), training=True, sizes=(32, 64, 96), every=1)
    first = iter(batches.endless())
    [next(first) for _ in range(5)]
    state, rest = first.get_state(), [next(first) for _ in range(3)]
    second = iter(batches.endless())
    second.set_state(state)
    assert same([next(second) for _ in range(3)], rest)
    later = shapes.batches(4, model(shapes), training=True, sizes=(32, 64, 96), every=1, epoch=1)
    assert same(epoch(later)[1:], rest)


def test_statistics_are_measured_on_the_models_own_size(shapes):
    batches = shapes.batches(4, model(shapes), training=True, sizes=(32, 96), every=1)
    assert {images.shape[1] for images in batches.some_images()} == {64}


@pytest.mark.parametrize("options", [{"sizes": (32,)}, {"sizes": (32, 64), "training": False}])
def test_sizes_that_make_no_sense_are_refused(shapes, options):
    with pytest.raises(ValueError, match="sizes are for training; give two different ones"):
        shapes.batches(4, model(shapes), **{"training": True} | options)


@pytest.mark.parametrize(
    ("multiple", "message"), [(None, "trained on squares of one size only"), (32, "100 is no multiple of 32")]
)
def test_sizes_that_a_model_cannot_take_are_refused(shapes, multiple, message):
    with pytest.raises(ValueError, match=rf"sizes=\(64, 100\): .*{message}"):
        shapes.batches(4, model(shapes, size_multiple=multiple), training=True, sizes=(64, 100))


# === What is refused ===


def test_wrong_sets_are_refused(shapes):
    with pytest.raises(ValueError, match="holds no photos"):
        shapes[:0].batches(4, model(shapes))
    with pytest.raises(ValueError, match=r"the set's classes .* are not the model's \('person',\)"):
        shapes.batches(4, model(shapes, classes=("person",)))
    with pytest.raises(ValueError, match="batch_size is 0"):
        shapes.batches(0, model(shapes))
    with pytest.raises(ValueError, match="max_boxes is 0; give 1 or more"):
        shapes.batches(4, model(shapes), max_boxes=0)


@pytest.mark.parametrize("kind", ["boxes", "ignore"])
def test_boxes_that_are_nowhere_are_refused(one_photo, kind):
    fields = {kind: np.array([[1, 2, np.nan, 9]], np.float32)}
    data = one_photo(**{"boxes": np.zeros((0, 4))} | fields)
    with pytest.raises(ValueError, match=rf"a\.png: row 0 of {kind} is .*not finite numbers; fix it"):
        data.batches(1, model(data))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"labels": [1]}, r"a\.png: row 0 has label 1, and there are 1 classes; labels count from 0"),
        ({"labels": [-1]}, "row 0 has label -1"),
        ({"labels": [0, 0]}, r"boxes are of shape \(1, 4\), and there are 2 labels and 0 masks"),
        ({"boxes": np.zeros(4, np.float32)}, r"of shape \(4,\)"),
        ({"masks": ((), ())}, "1 labels and 2 masks"),
        ({"boxes": np.array([[30, 30, 30, 90]])}, r"boxes is \[30, 30, 30, 90\]; give x1, y1, x2, y2"),
        ({"boxes": np.array([[100, 100, 50, 60]])}, "not x, y, width, height"),
    ],
)
def test_samples_made_by_hand_are_looked_at(one_photo, fields, message):
    data = one_photo([[1, 2, 30, 40]])
    sample = dataclasses.replace(data[0], labels=np.array([0], np.int32))
    data = Dataset([dataclasses.replace(sample, **fields)], data.classes)
    with pytest.raises(ValueError, match=message):
        data.batches(1, model(data))
    with pytest.raises(ValueError, match=message):
        coco_metrics(data, [Detections(np.zeros((0, 4)), [], [], data.classes)])


@pytest.mark.parametrize("workers", [0, 1])
def test_an_unreadable_photo_is_named(one_photo, tmp_path, workers):
    data = one_photo([[10, 10, 60, 40]])
    (tmp_path / "a.png").write_bytes(b"nothing")
    with pytest.raises(Exception, match=r"a\.png"):
        epoch(data.batches(1, model(data), workers=workers))


# === Outlines ===


@pytest.mark.parametrize("mosaic", [0.0, 1.0])
def test_outlines_move_with_the_pixels(tmp_path, mosaic):
    """A white triangle on black: wherever the warp takes it, its outline's cells are the white pixels."""
    import cv2

    triangle = np.array([(30, 10), (90, 100), (20, 120)], np.float32)
    picture = np.zeros((140, 120, 3), np.uint8)
    cv2.fillPoly(picture, [triangle.astype(np.int32)], (255, 255, 255))
    Image.fromarray(picture).save(tmp_path / "a.png")
    box = np.concatenate([triangle.min(0), triangle.max(0)])[None]
    sample = Sample(str(tmp_path / "a.png"), box, np.zeros(1, np.int32), masks=((triangle,),))
    data = Dataset([sample] * 12, ("triangle",))
    augment = dataclasses.replace(
        Augment(), brightness=0.0, contrast=0.0, saturation=0.0, mosaic=mosaic, min_visible=0.2
    )
    batches = data.batches(12, model(data, image_size=128, mask_size=56), training=True, augment=augment)
    (images, targets), = epoch(batches)
    assert targets["masks"].shape[2:] == (56, 56) and targets["masks"].dtype == np.uint8
    shared = whole = 0
    for image, boxes, masks, labels in zip(
        images, targets["boxes"], targets["masks"], targets["labels"], strict=True
    ):
        for box, mask in zip(boxes[labels >= 0], masks[labels >= 0], strict=True):
            inside = np.zeros((128, 128), bool)
            x1, y1, x2, y2 = np.rint(box).astype(int)
            inside[y1:y2, x1:x2] = True
            white = (image[..., 0] > 127) & inside
            painted = outlines.paste(mask.astype(np.float32), box, 128, 128) > 0
            shared, whole = shared + (white & painted).sum(), whole + (white | painted).sum()
    assert shared / whole > 0.9


def test_objects_without_an_outline_teach_none(one_photo):
    square = np.array([(0, 0), (50, 0), (50, 50), (0, 50)], np.float32)
    data = one_photo([[0, 0, 50, 50], [60, 10, 90, 40]], masks=((square,), ()))
    (_, targets), = epoch(data.batches(1, model(data, mask_size=8)))
    assert targets["mask_weights"][0, :2].tolist() == [1, 0]
    assert targets["masks"][0, 0].all() and not targets["masks"][0, 1].any()


# === Processes ===


@pytest.fixture
def process(monkeypatch):
    """Puts the loader into one of two processes, with two devices each."""

    def enter(number):
        monkeypatch.setattr("kerasdet.distribution.share_of", lambda model: Share(number, 2, 4))

    return enter


@pytest.mark.parametrize("options", [{"augment": Augment(mosaic=0.5)}, {"sizes": (32, 64), "every": 1}])
def test_processes_share_every_batch(shapes, process, options):
    make = lambda: epoch(shapes.batches(8, model(shapes), training=True, seed=2, **options))  # noqa: E731
    whole, parts = make(), []
    for number in (0, 1):
        process(number)
        parts.append(make())
    assert [len(part) for part in parts] == [2, 2]
    for (images, targets), *halves in zip(whole, *parts, strict=True):
        for number, half in enumerate(halves):
            rows = slice(number, None, 2)
            assert same(half, (images[rows], {key: value[rows] for key, value in targets.items()}))


def test_processes_make_equally_many_batches(shapes, process):
    whole = epoch(shapes.batches(8, model(shapes)))
    for number in (0, 1):
        process(number)
        # 14 photos: the last two do not go over four devices.
        batches = shapes[:14].batches(8, model(shapes))
        assert len(batches) == 2
        for (images, _), (all_images, _), count in zip(epoch(batches), whole, (4, 2), strict=True):
            assert np.array_equal(images, all_images[number::2][:count])


def test_statistics_are_measured_on_the_same_photos_everywhere(shapes, process):
    seen = []
    for number in (0, 1):
        process(number)
        seen.append(shapes.batches(8, model(shapes), training=True).some_images(16))
    assert same(*seen) and len(seen[0][0]) == 8


def test_batches_that_do_not_go_over_the_devices_are_refused(shapes, process):
    process(0)
    for data, size in ((shapes, 6), (shapes[:3], 8)):
        with pytest.raises(ValueError, match=f"batch_size is {size}, of {len(data)} photos, for 4 devices"):
            data.batches(size, model(shapes))
