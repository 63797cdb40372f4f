"""Batches for `fit`: a Grain dataset that decodes, warps and pads, reshuffled every epoch."""

from __future__ import annotations

import itertools
import warnings

import grain
import numpy as np
from absl import flags

from kerasdet import photo
from kerasdet.data.augment import Augment, place

MAX_BOXES = 100


def batches(
    dataset, batch_size, model, *, training=False, seed=0, threads=None, workers=0, max_boxes=None,
    epoch=0, augment=None, sizes=None, every=10,
) -> Batches:
    """A Grain dataset of batches for `model.fit` and `model.evaluate`.

    Args:
        dataset: sequence of `Sample`, with `classes` and `parts`.
        batch_size: photos a batch.
        model: the detector to feed (its `image_size`, `resize`, `classes` and `parts` are read).
        training: True shuffles, augments and drops a last incomplete batch.
        seed: the same seed gives the same batches, whatever the number of threads or workers.
        threads: threads that decode and warp; None takes 2. OpenCV works outside Python's lock.
        workers: processes that each run `threads` threads; 0 stays in this process. A script that
            asks for them keeps its work under `if __name__ == "__main__":`.
        max_boxes: objects a photo is padded to; None takes what the set needs, at most 100. Photos
            with more warn with their count; their smallest objects become ignore regions.
        epoch: the first epoch's number; a resumed run continues with the order it would have had.
        augment: `Augment`; None takes the default for training and no change otherwise.
        sizes: two or more sides of the square in pixels, for a model that takes squares of any size
            (`YOLOv3`), from which one is drawn again and again while training. None keeps to the model's
            `image_size`.
        every: batches from one change of size to the next. The first batch of an epoch stands alone:
            Keras looks at two batches to learn which sides of their arrays change.

    Returns:
        Batches of `(images, targets)`: images (B, S, S, 3) uint8 RGB; targets a dict of
        boxes (B, N, 4) float32 xyxy pixels of the square, labels (B, N) int32 with -1 in padding
        rows, weights (B, N) float32, ignore (B, M, 4) float32 with zeros in padding rows and, where
        the model has parts, parts (B, N, P, 4) and part_weights (B, N, P) float32.

    Raises:
        ValueError: the set is empty, its classes are not the model's, or sizes are given that are not
            two or more, or not for training.
    """
    if len(dataset) == 0:
        raise ValueError(f"the set {getattr(dataset, 'name', '') or ''} holds no photos to make batches of")
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}; give 1 or more")
    if tuple(dataset.classes) != tuple(model.classes):
        raise ValueError(
            f"the set's classes {tuple(dataset.classes)} are not the model's {tuple(model.classes)}; "
            "load the model with classes=data.classes, or take data.select(...)"
        )
    if sizes is not None and (not training or len(set(sizes)) < 2 or every < 1):
        raise ValueError(
            f"sizes={tuple(sizes)}, every={every}, training={training}: sizes are for training; give two "
            "different ones or more, changed every 1 batch or more"
        )
    counts = np.array([len(sample.boxes) for sample in dataset])
    regions = np.array([len(sample.boxes) + len(sample.ignore) for sample in dataset])
    if max_boxes is None:
        max_boxes = min(MAX_BOXES, _round_up(counts.max()))
    if (counts > max_boxes).any():
        warnings.warn(
            f"{(counts > max_boxes).sum()} photos have more than max_boxes={max_boxes} objects "
            f"(up to {counts.max()}); their smallest objects are ignored",
            stacklevel=3,
        )
    prepare = Prepare(
        size=model.image_size, resize=model.resize, max_boxes=int(max_boxes),
        max_ignore=_round_up(regions.max()),
        part_columns=tuple(
            dataset.parts.index(part) if part in dataset.parts else -1 for part in model.parts
        ),
        augment=augment or (Augment() if training else Augment.none()),
    )
    return Batches(dataset, batch_size, prepare, training, seed, 2 if threads is None else threads,
                   workers, epoch, sizes, every)


def _round_up(count: int) -> int:
    return max(8, int(-(-count // 8) * 8))


class Prepare(grain.transforms.RandomMap):
    """Sample -> (image, targets) with static shapes. Arguments as in `batches`.

    In place of a sample it takes a pair of a sample and the side of its square.
    """

    def __init__(self, size, resize, max_boxes, max_ignore, part_columns, augment):
        self.size, self.resize = size, resize
        self.max_boxes, self.max_ignore = max_boxes, max_ignore
        self.part_columns, self.augment = part_columns, augment

    def random_map(self, sample, rng: np.random.Generator):
        sample, size = sample if isinstance(sample, tuple) else (sample, self.size)
        image = photo.read(sample.path)
        base = photo.square_matrix(image.shape[0], image.shape[1], size, self.resize)
        changed = self.augment != Augment.none()
        matrix = self.augment.matrix(sample, base, size, rng) if changed else base
        if changed:
            square = self.augment.light(photo.warp(image, matrix, size), rng)
        else:
            square, _ = photo.to_square(image, size, self.resize)
        boxes, labels, ignore, parts, part_weights = place(sample, matrix, size, self.augment)
        if len(boxes) > self.max_boxes:
            sides = boxes[:, 2:] - boxes[:, :2]
            order = np.argsort(-sides.prod(-1), kind="stable")
            largest, rest = order[: self.max_boxes], order[self.max_boxes :]
            ignore = np.concatenate([ignore, boxes[rest]])
            boxes, labels = boxes[largest], labels[largest]
            parts, part_weights = parts[largest], part_weights[largest]
        targets = {
            "boxes": _pad(boxes, self.max_boxes),
            "labels": _pad(labels.astype(np.int32), self.max_boxes, -1),
            "weights": _pad(np.ones(len(boxes), np.float32), self.max_boxes),
            "ignore": _pad(ignore[: self.max_ignore], self.max_ignore),
        }
        if self.part_columns:
            # A part that the set does not label gets weight 0 in every row.
            n, columns = len(boxes), self.part_columns
            some = np.stack([parts[:, c] if c >= 0 else np.zeros((n, 4), np.float32) for c in columns], 1)
            weight = np.stack(
                [part_weights[:, c] if c >= 0 else np.zeros(n, np.float32) for c in columns], 1
            )
            targets["parts"] = _pad(some, self.max_boxes)
            targets["part_weights"] = _pad(weight, self.max_boxes)
        return square, targets


def _pad(rows: np.ndarray, count: int, value=0) -> np.ndarray:
    padded = np.full((count, *rows.shape[1:]), value, rows.dtype)
    padded[: len(rows)] = rows
    return padded


class _WithSize(grain.transforms.MapWithIndex):
    """Sample -> (sample, side of its square); all samples of a batch get one side."""

    def __init__(self, sides: list[int], batch_size: int):
        self.sides, self.batch_size = sides, batch_size

    def map_with_index(self, index, sample):
        return sample, self.sides[index // self.batch_size]


class Batches(grain.IterDataset):
    """One epoch of batches; `Detector.fit` goes on to the following epochs by itself.

    Attributes:
        epoch: number of the epoch that iterating gives. The order of photos and what augmentation
            does to them hang on it and on the seed alone.
    """

    def __init__(
        self, dataset, batch_size, prepare, training, seed, threads, workers, epoch, sizes, every
    ):
        super().__init__()
        self.dataset, self.batch_size, self.prepare = dataset, batch_size, prepare
        self.training, self.seed, self.epoch = training, seed, epoch
        self.threads, self.workers = threads, workers
        self.sizes, self.every = sizes, every

    def __len__(self) -> int:
        full, rest = divmod(len(self.dataset), self.batch_size)
        return full + bool(rest and not self._drop_remainder)

    @property
    def _drop_remainder(self) -> bool:
        return self.training and len(self.dataset) > self.batch_size

    def sides(self, epoch: int) -> list[int]:
        """The side of the square of each of an epoch's batches, where `sizes` are given."""
        rng = np.random.default_rng([self.seed, epoch])
        sides: list[int] = []
        for batch in range(-(-len(self.dataset) // self.batch_size)):
            if batch == 0 or (batch - 1) % self.every == 0:
                # Never the same again: a first and a second batch of one size would look to Keras as if
                # all were.
                side = int(rng.choice(sorted({*self.sizes} - {*sides[-1:]})))
            sides.append(side)
        return sides

    def epoch_dataset(self, epoch: int, one_size: bool = False) -> grain.IterDataset:
        """The batches of one epoch, by number; with `one_size` all of the model's own size."""
        photos = grain.MapDataset.source(self.dataset).seed(self.seed * 100_003 + epoch)
        if self.training:
            photos = photos.shuffle()
        if self.sizes is not None and not one_size:
            photos = photos.map_with_index(_WithSize(self.sides(epoch), self.batch_size))
        photos = photos.random_map(self.prepare)
        # Batched before it is read: so each thread or worker makes whole batches, and which photos a
        # batch holds does not hang on their number.
        photos = photos.batch(self.batch_size, drop_remainder=self._drop_remainder)
        photos = photos.to_iter_dataset(
            grain.ReadOptions(num_threads=self.threads, prefetch_buffer_size=4 + self.threads)
        )
        if self.workers:
            if not flags.FLAGS.is_parsed():
                # Grain's workers read command-line flags, which only an absl application parses.
                flags.FLAGS.mark_as_parsed()
            photos = photos.mp_prefetch(grain.MultiprocessingOptions(num_workers=self.workers))
        return photos

    def __iter__(self):
        return iter(self.epoch_dataset(self.epoch))

    def some_images(self, count: int = 64) -> list[np.ndarray]:
        """About `count` pictures as training sees them, in batches of the model's size: always the same."""
        first = itertools.islice(self.epoch_dataset(0, one_size=True), max(1, count // self.batch_size))
        return [images for images, _ in first]

    def endless(self) -> EndlessBatches:
        """All epochs from `epoch` on, one after the other, without end."""
        return EndlessBatches(self)


class EndlessBatches(grain.IterDataset):
    """Epoch after epoch of `Batches`, each in an order of its own."""

    def __init__(self, batches: Batches):
        super().__init__()
        self.batches = batches

    def __iter__(self):
        return _EndlessIterator(self.batches)


class _EndlessIterator(grain.DatasetIterator):
    def __init__(self, batches: Batches):
        super().__init__()
        self._batches, self._epoch = batches, batches.epoch
        self._current = iter(batches.epoch_dataset(self._epoch))

    def __next__(self):
        try:
            return next(self._current)
        except StopIteration:
            self._epoch += 1
            self._current = iter(self._batches.epoch_dataset(self._epoch))
            return next(self._current)

    def get_state(self):
        return {"epoch": self._epoch, "current": self._current.get_state()}

    def set_state(self, state):
        self._epoch = state["epoch"]
        self._current = iter(self._batches.epoch_dataset(self._epoch))
        self._current.set_state(state["current"])
