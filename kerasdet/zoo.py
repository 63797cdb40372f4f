"""The shelf of presets: detectors by name, with their cards and checked weights.

A preset is a folder: `card.json`, `config.json` (the detector's class and configuration),
    `labels.txt`, `model.weights.h5` and whatever else belongs to it, such as the recipe that made
    it. Presets are looked up in the folders that the environment variable KERASDET_ZOO names, then
    in `zoo/` of the checkout, or in what the installed package carries: of the largest presets not the
    weights, see `fetching`. Names and cards are read without Keras.
"""

from __future__ import annotations

import contextlib
import difflib
import hashlib
import importlib
import json
import os
import pkgutil
import tempfile
from collections.abc import Iterable
from pathlib import Path

from kerasdet import untrusted
from kerasdet.card import FILE, Card
from kerasdet.fetching import weights_file
from kerasdet.transfer import adapt

__all__ = [
    "adapt", "card", "cards", "load", "load_file", "names", "presets", "recipe", "save_preset", "shelves",
]

CONFIG, LABELS, WEIGHTS = "config.json", "labels.txt", "model.weights.h5"
RECIPE = "recipe.py"
SHELVES = "KERASDET_ZOO"
# What helps against a damaged preset: it came with the package, or with a folder of SHELVES.
AGAIN = "install kerasdet again, or copy the preset's folder again from where it came"


# === Looking up ===


def names() -> list[str]:
    """Names of the presets, in alphabetical order."""
    return sorted(_folders())


def card(name: str) -> Card:
    """The card of a preset.

    Args:
        name: of the preset, or one of its aliases, such as "csp".

    Raises:
        ValueError: there is no such preset, or its card is broken.
    """
    return Card.read(_find(name))


def cards() -> list[Card]:
    """The cards of all presets, by name. Raises ValueError if one is broken."""
    return [card for card, _ in presets()]


def presets(name: str | None = None) -> list[tuple[Card, Path]]:
    """Cards and folders of all presets, by name, or of the one called `name`. Raises ValueError as `card`."""
    folders = [folder for _, folder in sorted(_folders().items())] if name is None else [_find(name)]
    return [(Card.read(folder), folder) for folder in folders]


def recipe(name: str | os.PathLike) -> Path:
    """The file of a recipe: what trains a preset.

    Args:
        name: of the preset, which need not be trained yet, or one of its aliases; or the file itself.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: there is no such preset.
    """
    if os.fspath(name).endswith(".py"):
        path = Path(name)
    else:
        planned = {file.parent.name: file for shelf in shelves()[::-1] for file in shelf.glob(f"*/{RECIPE}")}
        path = planned.get(os.fspath(name)) or _find(name, planned) / RECIPE
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such recipe")
    return path


def _folders() -> dict[str, Path]:
    """Name -> folder of every preset; where two shelves have one of a name, the first counts."""
    found: dict[str, Path] = {}
    for shelf in shelves():
        for file in sorted(shelf.glob(f"*/{FILE}")):
            found.setdefault(file.parent.name, file.parent)
    return found


def shelves() -> list[Path]:
    """The folders that presets are looked up in, first to last. Raises ValueError if one is not there."""
    found = []
    for entry in filter(None, os.environ.get(SHELVES, "").split(os.pathsep)):
        if not Path(entry).is_dir():
            raise ValueError(f"{SHELVES} names the folder {entry}, which does not exist")
        found.append(Path(entry))
    package = Path(__file__).parent
    checkout = package.parent / "zoo"
    # A folder that happens to be called zoo beside an installed package is not ours.
    ours = checkout.is_dir() and (package.parent / "pyproject.toml").is_file()
    return [*found, checkout if ours else package / "_zoo"]


def _find(name: str, also: Iterable[str] = ()) -> Path:
    """The folder of a preset, by name or alias; `also` are names that an error offers besides."""
    folders = _folders()
    if name in folders:
        return folders[name]
    aliases = {}
    for folder in folders.values():
        for alias in Card.read(folder).aliases:
            aliases.setdefault(alias, folder)
    if name in aliases:
        return aliases[name]
    known = sorted({*folders, *aliases, *also})
    near = difflib.get_close_matches(str(name), known, n=1, cutoff=0.5)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    choices = ", ".join(known) or f"none (name a folder of presets in {SHELVES})"
    raise ValueError(f"there is no preset {name!r}.{hint} There is: {choices}")


# === Loading ===


def load(
    name: str, classes=None, weights: bool = True, image_size: int | None = None, parts=None, anchors=None,
):
    """A preset's detector.

    Args:
        name: of the preset, or an alias.
        classes: names of other classes, to fine-tune on. A class that the preset knows keeps what
            was learned of it; the head starts afresh for every other. Everything else keeps its
            weights.
        weights: False leaves all weights random, and none frozen.
        image_size: side of the network's square in pixels; None takes the preset's. The weights fit
            any size, but do best at the one they were trained at.
        parts: which of the preset's parts of objects, such as ("head",), to keep; () keeps none. None keeps
            all, but for classes that are all new: what was learned of people's heads is nothing to cats.
        anchors: other (width, height) pairs for a preset of YOLOv3, by rising area, in pixels of the square,
            as `kerasdet data anchors` finds them; as many as it has.

    Returns:
        A `kerasdet.Detector`, not compiled.

    Raises:
        ValueError: no such preset or part, a broken card, weights that are not those the card describes, an
            image size that the detector cannot have, or anchors of one that has none.
        FileNotFoundError: a file of the preset is missing, and its weights are nowhere that KERASDET_WEIGHTS
            names, a folder or an http address.
    """
    return _load_folder(_find(name), classes, weights, image_size, parts, anchors)


def load_file(path: str | os.PathLike):
    """A detector from a file; this is `kerasdet.load`.

    Args:
        path: a `.keras` file as `model.save` writes it, a `.tflite` file, the folder of a preset
            (as `save_preset` writes it), or the name of a preset.

    Returns:
        A `kerasdet.Detector`; for a `.tflite` a `kerasdet.deploy.LiteRTDetector`, which detects and
        evaluates alike and needs neither Keras nor TensorFlow. No code from a file is run: a `.keras` file
        is looked into first (see `kerasdet.untrusted`), and read in Keras' safe mode then; a `.tflite` is run
        once in another process, so that one which breaks LiteRT breaks that.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no such preset, or not a detector's file.
    """
    path = _located(path)
    if path.is_dir():
        return _load_folder(path)
    if path.suffix.lower() == ".tflite":
        from kerasdet.deploy.litert import LiteRTDetector
        from kerasdet.deploy.trial import run_once

        run_once(path)
        return LiteRTDetector(path)
    return _load_keras(path)


def fingerprint(path: str | os.PathLike) -> str:
    """sha256 of a detector's weights: of the file's bytes, or as the preset's card has it.

    Args:
        path: as for `load_file`, which is not called.

    Raises:
        As `load_file`, where there is no such file or preset.
    """
    path = _located(path)
    return Card.read(path).weights["sha256"] if path.is_dir() else _sha256(path)


def _located(path: str | os.PathLike) -> Path:
    """What `load_file` takes, as a .keras or .tflite file that is there, or a preset's folder."""
    text, path = os.fspath(path), Path(path)
    if path.suffix.lower() in (".keras", ".tflite"):
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no such file (looked from {os.getcwd()})")
        return path
    if (path / FILE).is_file():
        return path
    try:
        return _find(text)
    except ValueError as error:
        if not path.exists():
            raise
        raise ValueError(
            f"{path}: not a detector that can be loaded; give a .keras or .tflite file, a "
            f"preset's folder with its {FILE}, or a preset's name ({', '.join(names())})"
        ) from error


def _load_keras(path: Path):
    import keras

    from kerasdet.detector import Detector

    _register_detectors()
    importlib.import_module("kerasdet.training.schedules")  # for the optimizer
    untrusted.check_keras(path)
    try:
        with untrusted.no_more_weights_than(path):
            model = keras.saving.load_model(path, safe_mode=True)
    except ImportError:  # of a library that its backbone is from
        raise
    # Anything: classes are made of values that nobody has checked.
    except Exception as error:
        raise ValueError(f"{path}: cannot be read as a Keras model: {error}") from error
    if not isinstance(model, Detector):
        raise ValueError(f"{path}: holds a {type(model).__name__}, not a kerasdet detector")
    return model


def _load_folder(
    folder: Path, classes=None, weights: bool = True, image_size: int | None = None, parts=None, anchors=None,
):
    card = Card.read(folder)
    detector_class, config = _read_config(folder)
    if weights:
        file = weights_file(folder, card)
        _check_weights(file, card)
    else:
        file = None
        # Random layers that never learn would stay random, and random statistics normalise nothing.
        whole = {"freeze_bn": False, "freeze_until": None}
        config |= {key: value for key, value in whole.items() if key in config}
    model = _made(detector_class, config, folder, file)
    if file:
        model.load_weights(file)
    return adapt(model, classes, image_size, parts=parts, anchors=anchors)


def _made(detector_class, config: dict, folder: Path, weights: Path | None):
    try:
        # Without weights, there is nothing to go by.
        held = untrusted.no_more_weights_than(weights) if weights else contextlib.nullcontext()
        with held:
            return detector_class.from_config(config)
    except (TypeError, AttributeError) as error:
        raise ValueError(
            f"{folder / CONFIG}: not the configuration of a {detector_class.__name__} ({error}); {AGAIN}"
        ) from error


def _read_config(folder: Path):
    import keras

    from kerasdet.detector import Detector

    path = folder / CONFIG
    if not path.is_file():
        raise FileNotFoundError(f"{path}: the preset's configuration is missing")
    _register_detectors()
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        registered, config = values["class"], values["config"]
        untrusted.check_config(config)
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"{path}: damaged ({error!r}); {AGAIN}") from error
    detector_class = keras.saving.get_registered_object(str(registered))
    if not (isinstance(detector_class, type) and issubclass(detector_class, Detector)):
        raise ValueError(f"{path}: there is no detector {registered!r} in this kerasdet")
    return detector_class, config


def _register_detectors():
    """Imports every detector, so that Keras knows their classes by name."""
    from kerasdet import models

    for module in pkgutil.iter_modules(models.__path__, f"{models.__name__}."):
        importlib.import_module(module.name)


def _check_weights(path: Path, card: Card):
    found = _sha256(path)
    if found != card.weights["sha256"]:
        raise ValueError(
            f"{path}: these are not the weights that the card describes (sha256 {found[:12]}..., "
            f"in the card {card.weights['sha256'][:12]}...): the file was changed or damaged; "
            + AGAIN
        )
    # The card may come from the same stranger.
    try:
        untrusted.check_hdf5(path)
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: cannot be read as weights: {error}; {AGAIN}") from error


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# === Saving ===


def save_preset(model, folder: str | os.PathLike, card_fields: dict) -> Card:
    """Writes a detector as a preset.

    Kernels are stored as float16, half the size; vectors (biases, batch normalisation) stay
    float32, since a variance may not fit. The rounding changes scores a little: measure what the
    card says on the preset as it is loaded.

    Args:
        model: a `kerasdet.Detector`.
        folder: is made where it is not there; its name is the preset's. Weights, configuration,
            labels and card in it are replaced.
        card_fields: what `Card` asks for and the model does not know: summary, aliases, training,
            scores, latency, deviations, licence; and backbone if it is no named one. What the model
            does know, from name to weights, is filled in.

    Returns:
        The card that was written.

    Raises:
        ValueError: a field is missing or wrong, or a weight does not fit float16.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    config = model.get_config()
    backbone = config.get("backbone")
    known = {
        "name": folder.resolve().name, "detector": type(model).__name__,
        "image_size": model.image_size, "classes": list(model.classes), "parts": list(model.parts),
        "parameters": model.count_params(),
    } | ({"backbone": backbone} if isinstance(backbone, str) else {})
    with tempfile.TemporaryDirectory(dir=folder) as work:
        halved = Path(work) / "half.h5"
        full = Path(work) / WEIGHTS
        model.save_weights(full)
        _halve(full, halved)
        known["weights"] = {
            "file": WEIGHTS, "sha256": _sha256(halved), "bytes": halved.stat().st_size
        }
        # Nothing of an old preset is replaced before the new card has passed its checks.
        card = Card.from_dict(known | card_fields, str(folder / FILE))
        os.replace(halved, folder / WEIGHTS)
    registered = f"kerasdet>{type(model).__name__}"
    text = json.dumps({"class": registered, "config": config}, indent=1)
    (folder / CONFIG).write_text(text + "\n", encoding="utf-8")
    (folder / LABELS).write_text("".join(f"{name}\n" for name in model.classes), encoding="utf-8")
    card.write(folder)
    return card


def _halve(source: Path, target: Path):
    """Copies a weights file with its kernels as float16."""
    import h5py
    import numpy as np

    with h5py.File(source) as old, h5py.File(target, "w", track_order=False) as new:

        def copy(name, item):
            # A compiled model saves its optimizer's state too, twice the size of the weights.
            if name.split("/")[0] == "optimizer":
                return
            if isinstance(item, h5py.Group):
                group = new.require_group(name)
                group.attrs.update(item.attrs)
                return
            value = item[()]
            if value.dtype == np.float32 and value.ndim > 1:
                with np.errstate(over="ignore"):  # said below, with the weight's name
                    half = value.astype(np.float16)
                if not np.isfinite(half).all():
                    raise ValueError(
                        f"weights {name}: a value of {np.abs(value).max():.3g} does not fit "
                        "float16 (up to 65504); the training has diverged"
                    )
                value = half
            dataset = new.create_dataset(name, data=value)
            dataset.attrs.update(item.attrs)

        new.attrs.update(old.attrs)
        old.visititems(copy)
