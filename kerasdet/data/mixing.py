"""What a picture is made of where it is made of several photos, and how each of these is decoded once."""

from __future__ import annotations

import collections
import dataclasses
import threading
from collections.abc import Sequence

import grain
import numpy as np

from kerasdet import photo
from kerasdet.data.sample import Sample

# A mosaic has four photos.
OTHERS = 3
# Bytes of decoded photos that are kept: some 250 of 400 px.
CAPACITY = 2**27


@dataclasses.dataclass(frozen=True)
class Picture:
    """What a picture of a batch is made of.

    Attributes:
        sample: the photo whose turn it is.
        size: side of the square in pixels; None leaves the model's.
        others: photos to mix it with; without any it is as it is.
    """

    sample: Sample
    size: int | None = None
    others: tuple[Sample, ...] = ()


class WithSize(grain.transforms.MapWithIndex):
    """Gives all pictures of a batch one size.

    Args:
        sides: of each batch.
        batch_size: pictures a batch.
    """

    def __init__(self, sides: Sequence[int], batch_size: int):
        self.sides, self.batch_size = sides, batch_size

    def map_with_index(self, index, picture):
        return dataclasses.replace(picture, size=self.sides[index // self.batch_size])


class WithOthers(grain.transforms.MapWithIndex):
    """Gives a picture other photos, drawn from those of the batch before, which have just been decoded.

    The set is shuffled, so they are any photos; those of the same batch would be in it twice.

    Args:
        photos: the samples of an epoch, in its order.
        batch_size: photos a batch.
        seed: of the draws; with the picture's place in the epoch it decides who is mixed with whom.
        batches: how many of the epoch's batches get others, the first ones; None for all.
    """

    def __init__(self, photos: Sequence[Sample], batch_size: int, seed: int, batches: int | None = None):
        self.photos, self.batch_size, self.seed, self.batches = photos, batch_size, seed, batches

    def map_with_index(self, index, picture):
        if self.batches is not None and index >= self.batches * self.batch_size:
            return picture
        count = len(self.photos)
        first = (index // self.batch_size - 1) * self.batch_size
        block = sorted({(first + place) % count for place in range(self.batch_size)} - {index})
        drawn = np.random.default_rng([self.seed, index]).permutation(block)
        others = []
        for place in drawn:
            other = self.photos[int(place)]
            # A set that was repeated has every photo several times.
            if other.path != picture.sample.path:
                others.append(other)
            if len(others) == OTHERS:
                break
        others = others or [self.photos[int(place)] for place in drawn[:OTHERS]] or [picture.sample]
        return dataclasses.replace(picture, others=tuple(others))


class PhotoBuffer:
    """The photos that were read last, decoded. Threads may share it; a process has its own.

    Args:
        capacity: bytes of pixels to keep.
    """

    def __init__(self, capacity: int = CAPACITY):
        self.capacity, self._size = capacity, 0
        self._photos: collections.OrderedDict[str, np.ndarray] = collections.OrderedDict()
        self._lock = threading.Lock()

    def __reduce__(self):
        return PhotoBuffer, (self.capacity,)

    def read(self, path: str) -> np.ndarray:
        """As `kerasdet.photo.read`; the array is not to be written to."""
        with self._lock:
            if path in self._photos:
                self._photos.move_to_end(path)
                return self._photos[path]
        image = photo.read(path)
        image.setflags(write=False)
        with self._lock:
            if path not in self._photos:
                self._photos[path] = image
                self._size += image.nbytes
            while self._size > self.capacity:
                _, oldest = self._photos.popitem(last=False)
                self._size -= oldest.nbytes
        return image
