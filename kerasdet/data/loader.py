"""Batches for `fit`: a Grain dataset that decodes, warps and pads, reshuffled every epoch."""

from __future__ import annotations

import itertools
import warnings
import weakref

import grain
import numpy as np
from absl import flags

from kerasdet import cores
from kerasdet.data.augment import Augment
from kerasdet.data.mixing import OTHERS, Picture, WithOthers, WithSize
from kerasdet.data.prepare import Prepare
from kerasdet.data.sample import check_samples

MAX_BOXES = 100
# More threads than this only take turns at Python's lock.
MAX_THREADS = 16


def batches(
    dataset, batch_size, model, *, training=False, seed=0, threads=None, workers=0, max_boxes=None,
    epoch=0, augment=None, sizes=None, every=10, mix_until=None,
) -> Batches:
    """A Grain dataset of batches for `model.fit` and `model.evaluate`.

    Args:
        dataset: sequence of `Sample`, with `classes` and `parts`.
        batch_size: photos a batch, of all devices together. Of several processes each makes its share of
            every batch, and all make equally many.
        model: the detector to feed (its `image_size`, `resize`, `classes` and `parts` are read, and how its
            batches are shared, see `distribution.share_of`).
        training: True shuffles, augments and drops a last incomplete batch. Otherwise photos of it that do
            not go evenly over the devices are left out.
        seed: the same seed gives the same batches, whatever the number of threads, workers or processes.
        threads: threads that decode and warp; None takes one a core, 2 to 16. OpenCV works outside
            Python's lock.
        workers: processes that each run `threads` threads; 0 stays in this process. A script that
            asks for them keeps its work under `if __name__ == "__main__":`.
        max_boxes: objects a photo is padded to; None takes what the set needs, at most 100. Photos
            with more warn with their count; their smallest objects become ignore regions.
        epoch: the first epoch's number; a resumed run continues with the order it would have had.
        augment: `Augment`; None takes the default for training and no change otherwise.
        sizes: two or more sides of the square in pixels, for a model that can be trained on any multiple of
            its `size_multiple` (`YOLOv3`, `CenterNet`, `CSP`), from which one is drawn again and again while
            training. None keeps to the model's `image_size`.
        every: batches from one change of size to the next. The first batch of an epoch stands alone:
            Keras looks at two batches to learn which sides of their arrays change.
        mix_until: number of the first epoch without mixup and mosaic: the last ones should see photos as
            they are. None keeps to `augment` throughout.

    Returns:
        Batches of `(images, targets)`: images (B, S, S, 3) uint8 RGB; targets a dict of
        boxes (B, N, 4) float32 xyxy pixels of the square, labels (B, N) int32 with -1 in padding
        rows, weights (B, N) float32, ignore (B, M, 4) float32 with zeros in padding rows and, where
        the model has parts, parts (B, N, P, 4) and part_weights (B, N, P) float32; where it is given
        proposals, proposals (B, R, 4) float32 with zeros in padding rows; where it learns outlines, masks
        (B, N, m, m) uint8, 1 in the cells of the object's box that it fills, and mask_weights (B, N) float32,
        0 where none is labelled.

    Raises:
        ValueError: the set is empty, a box in it is not finite, a label none of its classes, these
            are not the model's, it has no proposals or no outlines and the model needs some, sizes are given
            that are not two or more, not for training, or not for this model, or a batch does not go evenly
            over the devices.
    """
    # Not for a Grain worker, which imports this module and needs no Keras.
    from kerasdet.distribution import share_of

    check_samples(dataset, len(dataset.classes))
    if len(dataset) == 0:
        raise ValueError(f"the set {getattr(dataset, 'name', '') or ''} holds no photos to make batches of")
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}; give 1 or more")
    share = share_of(model)
    if batch_size % share.replicas or len(dataset) < share.replicas:
        raise ValueError(
            f"batch_size is {batch_size}, of {len(dataset)} photos, for {share.replicas} devices; give "
            f"{share.replicas} photos or more, and a multiple of {share.replicas} as batch_size"
        )
    if tuple(dataset.classes) != tuple(model.classes):
        raise ValueError(
            f"the set's classes {tuple(dataset.classes)} are not the model's {tuple(model.classes)}; "
            "load the model with classes=data.classes, or take data.select(...)"
        )
    if model.given_proposals and not any(len(sample.proposals) for sample in dataset):
        raise ValueError(
            f"the set {getattr(dataset, 'name', '') or ''} has no proposals, which {type(model).__name__} is "
            "given; find them with data.with_proposals(folder)"
        )
    if model.mask_size and not any(any(sample.masks) for sample in dataset):
        raise ValueError(
            f"the set {getattr(dataset, 'name', '') or ''} has no outlines, which {type(model).__name__} "
            "learns; give its annotations a segmentation of polygons (COCO json)"
        )
    if sizes is not None and (not training or len(set(sizes)) < 2 or every < 1):
        raise ValueError(
            f"sizes={tuple(sizes)}, every={every}, training={training}: sizes are for training; give two "
            "different ones or more, changed every 1 batch or more"
        )
    if sizes is not None:
        _check_sizes(sizes, model)
    augment = augment or (Augment() if training else Augment.none())
    if mix_until is not None and augment.photos == 1:
        raise ValueError(
            f"mix_until is {mix_until}, but nothing is mixed; give augment=Augment(mosaic=0.5), or mixup="
        )
    if max_boxes is not None and max_boxes < 1:
        raise ValueError(f"max_boxes is {max_boxes}; give 1 or more, or None for what the set needs")
    counts = np.array([len(sample.boxes) for sample in dataset])
    regions = np.array([len(sample.boxes) + len(sample.ignore) for sample in dataset])
    if max_boxes is None:
        # Several photos in one picture are seldom all crowded.
        others = np.quantile(counts, 0.9) * (augment.photos - 1)
        max_boxes = min(MAX_BOXES, _round_up(counts.max() + others))
    if (counts > max_boxes).any():
        warnings.warn(
            f"{(counts > max_boxes).sum()} photos have more than max_boxes={max_boxes} objects "
            f"(up to {counts.max()}); their smallest objects are ignored",
            stacklevel=3,
        )
    crowded = np.sort(regions)[-augment.photos :].sum()
    if min(batch_size, len(dataset) - 1) <= OTHERS:  # then a photo may be in a picture several times
        crowded = regions.max() * augment.photos
    prepare = Prepare(
        size=model.image_size, resize=model.resize, max_boxes=int(max_boxes),
        max_ignore=_round_up(crowded),
        part_columns=tuple(
            dataset.parts.index(part) if part in dataset.parts else -1 for part in model.parts
        ),
        augment=augment, proposals=model.given_proposals, mask_size=model.mask_size,
    )
    return Batches(dataset, batch_size, prepare, training, seed, _threads() if threads is None else threads,
                   workers, epoch, sizes, every, mix_until, share)


def _threads() -> int:
    """One for each core that this process may use, and no fewer than two: one reads while another waits."""
    return min(max(2, cores.usable()), MAX_THREADS)


def _check_sizes(sizes, model):
    multiple = model.size_multiple
    if multiple is None:
        raise ValueError(
            f"sizes={tuple(sizes)}: {type(model).__name__} is trained on squares of one size only; leave "
            "sizes out, or take YOLOv3, CenterNet or CSP"
        )
    odd = [size for size in sizes if size < multiple or size % multiple]
    if odd:
        raise ValueError(
            f"sizes={tuple(sizes)}: {odd[0]} is no multiple of {multiple}; this model takes such only"
        )


def _round_up(count: int) -> int:
    return max(8, int(-(-count // 8) * 8))


class Batches(grain.IterDataset):
    """One epoch of batches; `Detector.fit` goes on to the following epochs by itself.

    Attributes:
        epoch: number of the epoch that iterating gives. The order of photos and what augmentation
            does to them hang on it and on the seed alone.
        share: this process's part of each batch.
    """

    def __init__(
        self, dataset, batch_size, prepare, training, seed, threads, workers, epoch, sizes, every,
        mix_until, share,
    ):
        super().__init__()
        self.share = share
        self.dataset, self.batch_size, self.prepare = dataset, batch_size, prepare
        self.training, self.seed, self.epoch = training, seed, epoch
        self.threads, self.workers = threads, workers
        self.sizes, self.every, self.mix_until = sizes, every, mix_until
        self._first, self._learner = epoch, None
        # Of each that learned from them, the epoch that comes next.
        self._next: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()
        # Batches of an epoch of `fit`, and of those before it the ones that `epoch` does not count.
        self._steps, self._before = len(self), 0

    def begin(self, learner, epoch: int = 0, steps: int | None = None):
        """Says who goes through them now, from which of its epochs on, by how many steps an epoch.

        One that has not learned from them yet begins with the first epoch, as others before it: models that
        are compared see the same pictures.
        """
        if self._next and (self._learner is None or self._learner() is not learner):
            self.epoch = self._next.get(learner, self._first)
        self._learner = weakref.ref(learner)
        self._steps = len(self) if steps is None else steps
        gone = epoch * self._steps
        self.epoch = max(self.epoch, gone // len(self))
        self._before = max(0, gone - self.epoch * len(self))

    def end(self, epochs: int):
        """Says that as many epochs of who began were gone through."""
        self.epoch += -(-epochs * self._steps // len(self))
        self._next[self._learner()] = self.epoch

    def __len__(self) -> int:
        return -(-self._photos_used // self.batch_size)

    @property
    def _photos_used(self) -> int:
        """How many of an epoch's photos are in its batches, of all processes."""
        left_out = len(self.dataset) % (self.batch_size if self._drop_remainder else self.share.replicas)
        return len(self.dataset) - left_out

    @property
    def _drop_remainder(self) -> bool:
        return self.training and len(self.dataset) > self.batch_size

    def sides(self, epoch: int) -> list[int]:
        """The side of the square of each of an epoch's batches, where `sizes` are given."""
        count = len(self)
        if count == 1:  # then each epoch's differs from the one before, for the reason below
            return [self._side_after_side(epoch)]
        rng = np.random.default_rng([self.seed, epoch])
        sides: list[int] = []
        for batch in range(count):
            if batch == 0 or (batch - 1) % self.every == 0:
                # Never the same again: a first and a second batch of one size would look to Keras as if
                # all were.
                side = int(rng.choice(sorted({*self.sizes} - {*sides[-1:]})))
            sides.append(side)
        return sides

    def _side_after_side(self, number: int) -> int:
        """One of a row of sides, of which no two that follow each other are the same."""
        rng, side = np.random.default_rng(self.seed), None
        for _ in range(number + 1):
            side = int(rng.choice(sorted({*self.sizes} - {side})))
        return side

    def _seed(self, epoch: int) -> int:
        return self.seed * 100_003 + epoch

    def _photos(self, epoch: int) -> grain.MapDataset:
        """The samples of one epoch, in its order."""
        photos = grain.MapDataset.source(self.dataset).seed(self._seed(epoch))
        return photos.shuffle() if self.training else photos

    def samples(self, epoch: int, batch: int) -> list:
        """The samples of one batch, by the numbers of epoch and batch; see `mixes`."""
        photos = self._photos(epoch)
        first = batch * self.batch_size
        return [photos[i] for i in range(first, min(first + self.batch_size, len(photos)))]

    def mixes(self, epoch: int) -> int:
        """In how many of an epoch's batches, the first ones, pictures are made of several photos, of which
        `samples` are the first."""
        if self.prepare.augment.photos == 1:
            return 0
        if self.mix_until is None:
            return len(self)
        # It counts epochs of `fit`, which may be shorter or longer than those here.
        until = self.mix_until * self._steps
        return min(max(until - self._before - epoch * len(self), 0), len(self))

    def epoch_dataset(self, epoch: int, alike: bool = False) -> grain.IterDataset:
        """This process's batches of one epoch, by number.

        With `alike` all are of the model's own size, and whole: the same in every process.
        """
        samples = self._photos(epoch)
        photos = samples.map(Picture)
        if self.sizes is not None and not alike:
            photos = photos.map_with_index(WithSize(self.sides(epoch), self.batch_size))
        mixed = self.mixes(epoch)
        if mixed:
            others = WithOthers(samples, self.batch_size, self._seed(epoch), mixed)
            photos = photos.map_with_index(others)
            photos = photos.random_map(self.prepare)
        else:
            photos = photos.random_map(self.prepare.one_photo())
        # What becomes of a photo hangs on its place in the epoch: so a process takes its own ones after that.
        process, processes = (0, 1) if alike else (self.share.process, self.share.processes)
        photos = photos[: self._photos_used][process::processes]
        # Batched before it is read: so each thread or worker makes whole batches, and which photos a
        # batch holds does not hang on their number.
        photos = photos.batch(self.batch_size // processes)
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
        """About `count` pictures as training sees them in the end, in batches of the model's size.

        Always the same ones.
        """
        last = 0 if self.mix_until is None else -(-self.mix_until * max(len(self), self._steps) // len(self))
        batches = self.epoch_dataset(last, alike=True)
        return [images for images, _ in itertools.islice(batches, max(1, count // self.batch_size))]

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
