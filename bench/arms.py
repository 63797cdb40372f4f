"""Arms of a comparison: detectors that differ in one thing, each trained once in a folder of its own."""

from __future__ import annotations

import dataclasses
import functools
import os
import pathlib
import sys
from collections.abc import Callable

import numpy as np
from common import table

from kerasdet.training.folder import CONFIG

BATCH, RATE, BACKBONE_RATE = 16, 1e-3, 5e-5


@dataclasses.dataclass(frozen=True)
class Arm:
    """A detector and how it is trained.

    Attributes:
        about: what it is for.
        build: (classes, size, weights) -> detector.
        data: name of the set: "voc12" or "people".
        batches: number of epochs -> further arguments of `Dataset.batches`.
        train: further arguments of `train_in_stages`.
        labels: changes the training set before, such as by giving some objects a wrong class.
        watched: its AP goes into log.csv after every epoch.
    """

    about: str
    build: Callable
    data: str = "voc12"
    batches: Callable = lambda epochs: None
    train: dict = dataclasses.field(default_factory=dict)
    labels: Callable = lambda data: data
    watched: bool = False


class Run:
    """An arm in its folder: trained once; its detections are kept, and what was drawn of them.

    A folder that has only the latter, `*.figures.npz`, is enough for the tables: neither photos nor a
    training are asked for.
    """

    def __init__(self, name: str, arm: Arm, options):
        self.name, self.arm, self.options = name, arm, options
        self.folder = options.out / f"{options.claims}_{options.size}" / name
        self._detector = None

    @functools.cached_property
    def _sets(self):
        train, val = sets(self.arm.data, self.options.data)
        if self.options.photos:
            val = val.subset(range(min(self.options.photos, len(val))))
        return train, val

    @property
    def train(self):
        return self._sets[0]

    @property
    def val(self):
        return self._sets[1]

    @property
    def photos(self) -> int:
        """How many it is compared on."""
        if self.options.data is not None:
            return len(self.val)
        with self._open(self._figures("detections")) as kept:
            return int(kept["photos"])

    @property
    def trained(self) -> bool:
        """Whether it can be had without a training: there are photos, and it has begun in this folder."""
        return self.options.data is not None and (self.folder / CONFIG).is_file()

    @property
    def detector(self):
        """With the averaged weights; trained where it has not been."""
        if self._detector is None:
            import keras

            from kerasdet.metrics import CocoMetrics
            from kerasdet.training import Stage, train_in_stages

            options, arm = self.options, self.arm
            print(f"== {self.name}: {arm.about}", file=sys.stderr)
            keras.utils.set_random_seed(0)
            rates = {"rate": RATE, "backbone_rate": BACKBONE_RATE} | arm.train
            self._detector = train_in_stages(
                lambda size, fresh: arm.build(
                    self.train.classes, size, options.backbone if fresh else None
                ),
                [Stage(options.size, options.epochs, BATCH)], arm.labels(self.train), self.folder,
                steps_per_epoch=options.steps, batches=arm.batches(options.epochs),
                callbacks=[CocoMetrics(self.val)] if arm.watched else [],
                settings={"name": options.name, "backbone": os.path.basename(options.backbone)}, **rates,
            )
        return self._detector

    def settle(self) -> None:
        """Trains, detects on all validation photos and keeps what is found."""
        self.keep("detections", lambda: list(self.detect(self.detector)))

    def detect(self, detector):
        paths = [sample.path for sample in self.val]
        yield from detector.detect(paths, score=0.0, keep_photo=False)

    def keep(self, key: str, find: Callable) -> None:
        """Writes the detections that `find` gives under a name, unless they are there."""
        path = self.folder / f"{key}.npz"
        for there in (path, self._figures(key)):
            if there.exists():
                self._open(there).close()
                return
        found = find()
        self._write(
            path, counts=[len(one) for one in found], classes=np.array(found[0].classes),
            **{
                name: np.concatenate([getattr(one, name) for one in found])
                for name in ("boxes", "scores", "labels")
            },
        )

    def has(self, key: str) -> bool:
        """Whether figures of what is kept under a name can be told."""
        kept = self.options.data is not None and (self.folder / f"{key}.npz").exists()
        return kept or self._figures(key).exists()

    def _figures(self, key: str) -> pathlib.Path:
        return self.folder / f"{key}.figures.npz"

    def _write(self, path: pathlib.Path, **arrays) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        with partial.open("wb") as file:
            np.savez_compressed(file, **self._made_with(), **arrays)
        os.replace(partial, path)

    def _made_with(self) -> dict:
        """What detections of the same arm may differ by, as far as the command says it."""
        options = self.options
        said = {"epochs": options.epochs, "steps": options.steps or 0, "name": options.name}
        if options.data is not None:
            said["photos"] = len(self.val)
        if options.backbone is not None:
            said["backbone"] = os.path.basename(options.backbone)
        return said

    def kept(self, key: str) -> list:
        """The detections under a name, photo by photo."""
        from kerasdet.detections import Detections

        with self._open(self.folder / f"{key}.npz") as kept:
            ends = np.cumsum(kept["counts"])[:-1]
            columns = (np.split(kept[name], ends) for name in ("boxes", "scores", "labels"))
            classes = tuple(kept["classes"].tolist())
            return [Detections(*row, classes) for row in zip(*columns, strict=True)]

    def by_epoch(self, figure: str) -> list[float]:
        """A figure after each epoch, of an arm that was watched."""
        from kerasdet.training.folder import LOG, read_log

        return [row[f"val_{figure}"] for row in read_log(self.folder / LOG)]

    def _open(self, path: pathlib.Path):
        kept = np.load(path, allow_pickle=False)
        for key, wanted in self._made_with().items():
            value = kept[key].item() if key in kept else None
            if value != wanted:
                raise ValueError(
                    f"{path}: made with {key} {value!r}, and {wanted!r} is asked for; give the same again, "
                    "or another --out"
                )
        return kept

    def drawn(self, key: str = "detections", draw: Callable | None = None) -> dict[str, np.ndarray]:
        """Figures of what was kept under a name, as they were drawn when they were first asked for.

        Args:
            key: the name.
            draw: (validation photos, what was kept) -> figure -> draws; None takes `metrics.bootstrap`.

        Returns:
            figure -> (1 + draws,) float32, as `metrics.bootstrap` has them.
        """
        path = self._figures(key)
        if not path.exists():
            if draw is None:
                from kerasdet.metrics import bootstrap as draw
            figures = draw(self.val, self.kept(key))
            self._write(path, **{name: np.float32(values) for name, values in figures.items()})
        with self._open(path) as kept:
            return {name: kept[name] for name in kept.files if kept[name].ndim}


def sets(name: str, folder: pathlib.Path):
    """Training and validation photos."""
    if name == "voc12":
        from kerasdet.training import voc12

        train, held_back = voc12.sets(folder)
        return train, held_back["voc12"]
    import kerasdet

    return (kerasdet.data.load(folder / name, split=split) for split in ("train", "val"))


def changed(detector, **options):
    """The same weights under other options."""
    other = type(detector).from_config(detector.get_config() | options)
    other.set_weights(detector.get_weights())
    return other


# === Tables ===


def print_compared(what: str, drawn: dict[str, dict], figures, baseline: str) -> None:
    """Figures and the first one's change from the baseline; in a second table the changes of the others."""
    table((what, *figures, f"change in {figures[0]} from {baseline}"), rows(drawn, figures, baseline))
    if others := changes(drawn, figures[1:], baseline):
        print(f"\nchanges from {baseline}")
        table((what, *figures[1:]), others)


def rows(drawn: dict[str, dict], figures, baseline: str) -> list[tuple]:
    """A row for each name: its figures with intervals, and the change of the first one from the baseline."""
    from kerasdet.metrics import interval

    change = dict(changes(drawn, figures[:1], baseline))
    return [
        (name, *(f"{interval(each[figure]):.3f}" for figure in figures), change.get(name, ""))
        for name, each in drawn.items()
    ]


def changes(drawn: dict[str, dict], figures, baseline: str) -> list[tuple]:
    """A row for each other name: how far its figures are from the baseline's, with intervals."""
    from kerasdet.metrics import interval

    if baseline not in drawn:
        return []
    start = drawn[baseline]
    return [
        (name, *(f"{interval(each[figure] - start[figure]):+.3f}" for figure in figures))
        for name, each in drawn.items() if name != baseline
    ]
