"""Dataset: an immutable sequence of samples that share one list of classes."""

from __future__ import annotations

import collections.abc
import dataclasses
import difflib
import os
from collections.abc import Callable, Iterable, Iterator

import numpy as np

from kerasdet.data.sample import Sample


class Dataset(collections.abc.Sequence):
    """Photos with boxes. Every method returns a new set; samples are never changed in place.

    Attributes:
        samples: tuple of `Sample`.
        classes: names that the samples' `labels` index.
        parts: names of the samples' part columns, such as `("head",)`.
        name: what messages call the set.
        root: folder that the set was read from, or None.
    """

    def __init__(
        self,
        samples: Iterable[Sample],
        classes: Iterable[str],
        parts: Iterable[str] = (),
        name: str = "",
        root: str | os.PathLike | None = None,
    ):
        self.classes = tuple(classes)
        self.parts = tuple(parts)
        # One made by hand, a photo without objects for instance, may say nothing of parts.
        self.samples = tuple(
            _with_parts(each, (), self.parts) if np.shape(each.parts)[1:2] == (0,) else each
            for each in samples
        )
        self.name = name
        self.root = None if root is None else os.fspath(root)

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index):
        """The sample at `index`, or the set of a slice."""
        if isinstance(index, slice):
            return self._with(self.samples[index])
        return self.samples[index]

    def __iter__(self) -> Iterator[Sample]:
        return iter(self.samples)

    def __repr__(self) -> str:
        boxes = sum(len(sample.boxes) for sample in self.samples)
        names = ", ".join(self.classes[:5]) + (", ..." if len(self.classes) > 5 else "")
        text = f"Dataset({self.name!r}: {len(self)} photos, {boxes} boxes, classes: {names}"
        if self.parts:
            text += f", parts: {', '.join(self.parts)}"
        return text + ")"

    def _with(self, samples: Iterable[Sample], **changes) -> Dataset:
        fields = {"classes": self.classes, "parts": self.parts, "name": self.name}
        return Dataset(samples, root=self.root, **(fields | changes))

    # === Choosing photos ===

    def subset(self, indices: Iterable[int]) -> Dataset:
        """The photos at `indices`, in that order. Raises IndexError outside the set."""
        return self._with(self.samples[index] for index in indices)

    def split(
        self,
        fraction: float,
        seed: int = 0,
        by: Callable[[Sample], object] | None = None,
    ) -> tuple[Dataset, Dataset]:
        """Two disjoint sets, the first with about `fraction` of the photos; the same every time.

        Args:
            fraction: share of the photos in the first set, above 0 and below 1.
            seed: which of the possible splits.
            by: gives a sample's group; photos of one group stay together. Near-duplicates of one
                scene on both sides would make the second set look better than it is. None keeps a photo that
                the set has several times, see `repeat`, on one side.

        Raises:
            ValueError: a fraction outside (0, 1), or fewer than two photos or groups.
        """
        if not 0 < fraction < 1:
            raise ValueError(
                f"split fraction is {fraction}; give the first set's share, between 0 and 1"
            )
        groups: dict[object, list[int]] = {}
        for index, sample in enumerate(self.samples):
            groups.setdefault(sample.path if by is None else by(sample), []).append(index)
        if len(groups) < 2:
            kind = "photos" if by is None else "groups of photos"
            raise ValueError(
                f"{self.name or 'the set'}: cannot split {len(groups)} {kind} in two; "
                "a split needs at least 2"
            )
        members = list(groups.values())
        order = np.random.default_rng(seed).permutation(len(members))
        filled = np.cumsum([len(members[group]) for group in order])
        # The cut that comes nearest to the asked share and leaves neither side empty.
        cut = int(np.argmin(np.abs(filled[:-1] - fraction * len(self)))) + 1
        first = sorted(index for group in order[:cut] for index in members[group])
        second = sorted(index for group in order[cut:] for index in members[group])
        return self.subset(first), self.subset(second)

    def repeat(self, times: int) -> Dataset:
        """The set `times` over, to weigh it more in a mixture. Raises ValueError below 1."""
        if times < 1:
            raise ValueError(f"repeat({times}): a set can be repeated 1 time or more")
        return self._with(_unique_ids(self.samples * times))

    def repeat_rare(self, share: float, seed: int = 0) -> Dataset:
        """The set with photos of rare classes several times: repeat factor sampling.

        A class that a part f of the photos shows has the factor max(1, sqrt(share / f)), and a photo the
        highest factor of its classes; of its fraction, chance rounds up as often as it says. Photos without
        objects stay as they are. (Gupta et al., LVIS, 2019, Appendix B, where share is the threshold t.)

        Args:
            share: of the photos, above 0 and at most 1: classes that fewer show are repeated.
            seed: of the rounding, which is the same every time.

        Raises:
            ValueError: a share outside (0, 1].
        """
        if not 0 < share <= 1:
            raise ValueError(
                f"repeat_rare({share}): give the part of the photos, above 0 and at most 1, below which a "
                "class is rare"
            )
        shown = [np.unique(sample.labels).astype(int) for sample in self.samples]
        photos = np.bincount(np.concatenate([*shown, []]).astype(int), minlength=len(self.classes))
        factors = np.sqrt(np.maximum(1, share * len(self) / np.maximum(photos, 1)))
        factor = np.array([factors[labels].max(initial=1) for labels in shown])
        times = (factor + np.random.default_rng(seed).random(len(self))).astype(int)
        return self._with(_unique_ids(
            sample for sample, count in zip(self.samples, times, strict=True) for _ in range(count)
        ))

    def with_proposals(self, folder: str | os.PathLike, count: int = 2000, mode: str = "fast") -> Dataset:
        """The same photos with boxes that may hold an object, for detectors that are given them.

        Args:
            folder: holds a file <photo>.npy for each photo, (n, 4) xyxy in its pixels, the best first.
                Photos that have none are searched (see `data.selective_search`), and get one.
            count, mode: of the search; of files, the first `count` boxes are taken.

        Raises:
            ImportError: a photo has no file, and OpenCV's extra modules are missing.
            ValueError: a file that holds no boxes.
        """
        from kerasdet.data.proposals import of_photo, searched

        return self._with(
            dataclasses.replace(sample, proposals=of_photo(sample, path, count, mode))
            for sample, path in searched(self, folder)
        )

    # === Choosing classes ===

    def known_to(self, detector) -> Dataset | None:
        """The set with those of its classes that a detector has; None if it has none of them."""
        known = [name for name in self.classes if name in detector.classes]
        if len(known) == len(self.classes):
            return self
        return self.select(*known) if known else None

    def select(self, *classes: str, unknown: str = "drop") -> Dataset:
        """The same photos with only the boxes of `classes`, relabelled in the order given.

        Photos that lose all their boxes stay, as photos without objects.

        Args:
            classes: names among the set's own.
            unknown: what boxes of the other classes become: "drop" forgets them (they are
                background), "ignore" makes them ignore regions.

        Raises:
            ValueError: no class given, a class that the set does not have, or another `unknown`.
        """
        if unknown not in ("drop", "ignore"):
            raise ValueError(f"unknown={unknown!r}; choose 'drop' or 'ignore'")
        if not classes:
            raise ValueError(f"select() needs one or more of the set's classes {self.classes}")
        lookup = np.full(len(self.classes), -1, np.int32)
        for position, name in enumerate(classes):
            if name not in self.classes:
                raise ValueError(unknown_name("class", name, self.classes, self.name))
            lookup[self.classes.index(name)] = position

        def relabel(sample: Sample) -> Sample:
            labels = lookup[sample.labels]
            keep = labels >= 0
            if keep.all():
                return dataclasses.replace(sample, labels=labels)
            ignore = sample.ignore
            if unknown == "ignore":
                ignore = np.concatenate([ignore, sample.boxes[~keep]])
            return dataclasses.replace(
                sample,
                boxes=sample.boxes[keep],
                labels=labels[keep],
                ignore=ignore,
                parts=sample.parts[keep] if self.parts else sample.parts,
                part_weights=sample.part_weights[keep] if self.parts else sample.part_weights,
                masks=tuple(sample.masks[row] for row in np.flatnonzero(keep)) if sample.masks else (),
            )

        return self._with(map(relabel, self.samples), classes=classes)

    def as_one_class(self, name: str) -> Dataset:
        """The same boxes, all of one class `name`."""
        return self._with(
            (dataclasses.replace(s, labels=np.zeros_like(s.labels)) for s in self.samples),
            classes=(name,),
        )

    def __add__(self, other: Dataset) -> Dataset:
        """Both sets' photos. Parts that only one set labels get weight 0 in the other.

        Image ids that occur in both are made unique by a suffix.

        Raises:
            ValueError: the classes differ in name or order.
        """
        if not isinstance(other, Dataset):
            return NotImplemented
        if self.classes != other.classes:
            raise ValueError(
                f"cannot add sets with different classes: {self.name or 'left'} has "
                f"{self.classes}, {other.name or 'right'} has {other.classes}; bring them "
                "together with .select(...) or .as_one_class(name) first"
            )
        parts = self.parts + tuple(part for part in other.parts if part not in self.parts)
        samples = [
            _with_parts(sample, dataset.parts, parts)
            for dataset in (self, other)
            for sample in dataset
        ]
        names = [name for name in (self.name, other.name) if name]
        root = self.root if self.root == other.root else None
        return Dataset(_unique_ids(samples), self.classes, parts, " + ".join(names), root)

    # === Handing on ===

    def to_coco(self) -> dict:
        """COCO ground truth as a dict that pycocotools takes.

        Category ids are the labels + 1. An image's id is its position in the set + 1 (not
        `Sample.image_id`, which may be text). Boxes are xywh. An ignore region is an `iscrowd`
        annotation of every class, because pycocotools matches class by class.
        """
        images, annotations = [], []

        def annotate(box: np.ndarray, image_id: int, category_id: int, crowd: int) -> None:
            x1, y1, x2, y2 = map(float, box)
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": category_id,
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "area": (x2 - x1) * (y2 - y1),
                    "iscrowd": crowd,
                }
            )

        for image_id, sample in enumerate(self.samples, 1):
            images.append(
                {
                    "id": image_id,
                    "file_name": os.path.basename(sample.path),
                    "width": sample.width,
                    "height": sample.height,
                }
            )
            for box, label in zip(sample.boxes, sample.labels, strict=True):
                annotate(box, image_id, int(label) + 1, 0)
            for box in sample.ignore:
                for label in range(len(self.classes)):
                    annotate(box, image_id, label + 1, 1)
        return {
            "info": {"description": self.name},
            "images": images,
            "annotations": annotations,
            "categories": [{"id": i + 1, "name": name} for i, name in enumerate(self.classes)],
        }

    def batches(
        self,
        batch_size: int,
        model,
        training: bool = False,
        seed: int = 0,
        threads: int | None = None,
        workers: int = 0,
        max_boxes: int | None = None,
        epoch: int = 0,
        augment=None,
        sizes: Iterable[int] | None = None,
        every: int = 10,
        mix_until: int | None = None,
    ):
        """Batches for `model.fit`, as `kerasdet.data.loader.batches` makes them."""
        from kerasdet.data import loader

        return loader.batches(
            self,
            batch_size,
            model,
            training=training,
            seed=seed,
            threads=threads,
            workers=workers,
            max_boxes=max_boxes,
            epoch=epoch,
            augment=augment,
            sizes=sizes,
            every=every,
            mix_until=mix_until,
        )


def unknown_name(kind: str, name: str, known: Iterable[str], where: str = "") -> str:
    """Message for a name that is not among `known`, with the nearest one if one is near."""
    known = tuple(known)
    near = difflib.get_close_matches(str(name), known, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    prefix = f"{where}: " if where else ""
    choices = ", ".join(map(repr, known)) or "none"
    return f"{prefix}there is no {kind} {name!r}.{hint} There is: {choices}"


def _with_parts(sample: Sample, have: tuple[str, ...], want: tuple[str, ...]) -> Sample:
    """`sample` with its part columns `have` laid out as `want`; new columns weigh 0."""
    if have == want:
        return sample
    parts = np.zeros((len(sample.boxes), len(want), 4), np.float32)
    weights = np.zeros((len(sample.boxes), len(want)), np.float32)
    for column, part in enumerate(have):
        parts[:, want.index(part)] = sample.parts[:, column]
        weights[:, want.index(part)] = sample.part_weights[:, column]
    return dataclasses.replace(sample, parts=parts, part_weights=weights)


def _unique_ids(samples: Iterable[Sample]) -> list[Sample]:
    """The samples, with `#2`, `#3` ... after an image id that came before."""
    seen: set[int | str] = set()
    copies: collections.Counter = collections.Counter()
    result = []
    for sample in samples:
        image_id = sample.image_id
        while image_id in seen:
            copies[sample.image_id] += 1
            image_id = f"{sample.image_id}#{copies[sample.image_id] + 1}"
        seen.add(image_id)
        same = image_id == sample.image_id
        result.append(sample if same else dataclasses.replace(sample, image_id=image_id))
    return result
