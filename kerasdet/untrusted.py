"""What a `.keras` or HDF5 file from a stranger may hold, looked at before Keras and HDF5 get it.

Keras' safe mode refuses what runs code; by which ways round it did not has changed from version to version.
A detector needs little of what Keras can load, so what is not on the list here is not loaded. Nothing heavy
is imported.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import threading
import zipfile
import zlib

_MEMBERS = ("metadata.json", "config.json", "model.weights.h5")
# A configuration is text of some 100 kB; one that is packed small can be of any size.
MAX_CONFIG = 2**26
# Weights hardly get smaller by packing. HDF5 takes any shape of an array, whether there are values or not.
MAX_GROWTH = 20
# Numbers that layers may have for each byte of a file, which has them in two or four bytes each; but a
# backbone's are made twice at times. And how many more at least, for small files.
MAX_NUMBERS, SOME_NUMBERS = 4, 2**24
_COUNTING = threading.RLock()
# Modules of the classes that a detector is made of. Not `keras.src` as a whole: among it is what opens files
# and downloads.
_MODULES = (
    "builtins", "keras", "keras.activations", "keras.constraints", "keras.dtype_policies",
    "keras.initializers", "keras.layers", "keras.losses", "keras.metrics", "keras.optimizers",
    "keras.optimizers.schedules", "keras.regularizers", "keras.src.models.functional",
)
_PACKAGES = ("kerasdet", "keras_cv", "keras_hub")
# What holds a program, or leads to another file.
_PROGRAMS = (
    "Lambda", "__lambda__", "TorchModuleWrapper", "TFSMLayer", "JaxLayer", "FlaxLayer", "StringLookup",
    "IntegerLookup", "TextVectorization",
)
# What Keras writes of values that are no objects of its own.
_PLAIN = ("__keras_tensor__", "__tensor__", "__numpy__", "__typespec__", "__tuple__", "__slice__")


def check_keras(path: str | os.PathLike) -> None:
    """Looks into a `.keras` file.

    Raises:
        ValueError: it is no such file; it holds other files, or another class than a detector's, such as a
            Lambda layer; or its weights are not plain numbers, see `check_hdf5`.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            entries = {entry.filename: entry for entry in archive.infolist()}
            others = sorted(entries.keys() - set(_MEMBERS))
            if others:
                raise ValueError(f"it holds {others[0]!r}, which is no part of a detector")
            missing = [name for name in _MEMBERS if name not in entries]
            if missing:
                raise ValueError(f"{missing[0]} is missing in it")
            packed = [name for name, entry in entries.items() if entry.compress_type != zipfile.ZIP_STORED]
            if packed:
                raise ValueError(f"{packed[0]} in it is compressed, which Keras does not do")
            if entries["config.json"].file_size > MAX_CONFIG:
                raise ValueError(f"config.json in it is larger than {MAX_CONFIG} bytes")
            check_config(json.loads(archive.read("config.json")))
            with archive.open("model.weights.h5") as weights:
                check_hdf5(weights)
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError, ValueError, RuntimeError) as error:
        raise ValueError(f"{path}: cannot be read as a Keras model: {error}") from error


def check_config(config) -> None:
    """Looks for a class that a detector is not made of in what `keras.saving` serialised.

    Args:
        config: what `json.load` gives.

    Raises:
        ValueError: names the class.
    """
    todo = [config]
    while todo:
        item = todo.pop()
        if isinstance(item, list):
            todo += item
        if not isinstance(item, dict):
            continue
        todo += item.values()
        if item.get("backbone_weights") is not None:
            # No detector writes it; it would open a file of this machine, or fetch one.
            raise ValueError("it names weights elsewhere, which no detector of kerasdet does; do not load it")
        if "class_name" not in item:
            continue
        name, module = item["class_name"], item.get("module")
        shown = f"{str(module)[:60]}.{str(name)[:60]}"
        if name in _PROGRAMS:
            raise ValueError(
                f"it has a {shown}, which holds a program or reads other files; no detector of kerasdet has "
                "one, do not load it"
            )
        known = module is None and name in _PLAIN
        if isinstance(module, str):
            # Operations, such as a sum of two tensors, are in modules below `keras.src.ops`.
            known = module in _MODULES or module.startswith("keras.src.ops.")
            known = known or module.split(".")[0] in _PACKAGES
        if not known and not _is_ours(item.get("registered_name")):
            raise ValueError(
                f"it has a {shown}, of which no detector of kerasdet is made; if the class and the file are "
                "your own, open it with keras.saving.load_model"
            )


def _is_ours(registered) -> bool:
    """Whether Keras will take a class of kerasdet's for it, whatever module the file names."""
    import keras

    if not str(registered).startswith("kerasdet>"):
        return False
    return keras.saving.get_registered_object(registered) is not None


@contextlib.contextmanager
def no_more_weights_than(file: str | os.PathLike):
    """Within it, layers that need more weights than a file can hold are refused before they are made.

    It is Keras' own method that counts, for all threads alike: so threads that load wait for each other, and
    what a thread builds that does not load is not counted.

    Args:
        file: what the weights will come from.

    Raises:
        ValueError: within, where a configuration promises a larger network.
    """
    import keras

    size, numbers, thread = os.path.getsize(file), 0, threading.get_ident()

    def counted(self, shape=None, *args, **kwargs):
        nonlocal numbers
        if threading.get_ident() != thread:
            return add(self, shape, *args, **kwargs)
        numbers += math.prod(shape if isinstance(shape, (tuple, list)) else (shape or 1,))
        if numbers > MAX_NUMBERS * size + SOME_NUMBERS:
            raise ValueError(
                f"its configuration is of a network of {numbers} numbers and more, and the weights have "
                f"{size} bytes"
            )
        return add(self, shape, *args, **kwargs)

    with _COUNTING:
        add = keras.layers.Layer.add_weight
        keras.layers.Layer.add_weight = counted
        try:
            yield
        finally:
            keras.layers.Layer.add_weight = add


def check_hdf5(file) -> None:
    """Looks for what is no plain array of numbers in an HDF5 file: HDF5 can lead to other files.

    Args:
        file: path, or an open file.

    Raises:
        OSError: it is no HDF5 file.
        ValueError: names the entry that is a link, or says that its values are elsewhere, or promises more
            values than the file has bytes for.
    """
    try:
        _check_hdf5(file)
    except KeyError as error:  # h5py's, of what is damaged
        raise ValueError(f"damaged: {error}") from error


def _check_hdf5(file):
    import h5py

    with h5py.File(file, "r") as opened:
        size = file.seek(0, os.SEEK_END) if hasattr(file, "seek") else os.path.getsize(file)
        groups, seen, promised = [opened], set(), 0
        while groups:
            group = groups.pop()
            for name in group:
                where = f"{group.name.rstrip('/')}/{name}"
                if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                    raise ValueError(f"{where} is a link to elsewhere; weights have none, do not load it")
                item = group[name]
                if isinstance(item, h5py.Group):
                    # Hard links may lead in a circle.
                    if item.id not in seen:
                        seen.add(item.id)
                        groups.append(item)
                elif isinstance(item, h5py.Dataset):
                    if item.is_virtual or item.external:
                        raise ValueError(f"{where} has its values in another file; do not load it")
                    promised += item.nbytes
                    if promised > MAX_GROWTH * size:
                        raise ValueError(
                            f"{where} has the shape {item.shape}, {promised} bytes so far of a file of {size}"
                        )
