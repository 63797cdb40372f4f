"""Sets as recipes take them: what to train on, and what is held back to be scored."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Sequence

from kerasdet import data


def train_and_val(
    folder: str | os.PathLike, name: str, classes: Sequence[str]
) -> tuple[data.Dataset, dict[str, data.Dataset]]:
    """The split train of a set, and its split val by the set's name; of some classes only.

    Args:
        folder: holds the set in a folder of its name.
        name: of the set.
        classes: what is kept; objects of others are background.
    """
    train, val = (
        data.load(pathlib.Path(folder) / name, split=split).select(*classes) for split in ("train", "val")
    )
    return train, {name: val}
