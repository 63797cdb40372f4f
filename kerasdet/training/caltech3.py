"""Photos with one airplane, motorcycle or face each, from Caltech-101, as OverFeat's presets use them."""

from __future__ import annotations

import os
import pathlib

from kerasdet import data

CLASSES = ("airplane", "motorcycle", "face")
# What a card says of the data.
CARD_DATA = {
    "name": "caltech3", "photos": 1632,
    "source": "Caltech-101, three of its categories, one box a photo", "terms": "research use",
}


def sets(folder: str | os.PathLike) -> tuple[data.Dataset, dict[str, data.Dataset]]:
    """The training set, and the held-back one by name.

    Args:
        folder: holds caltech3/, CSV with the splits train and val.
    """
    train, val = (
        data.load(pathlib.Path(folder) / "caltech3", split=split).select(*CLASSES)
        for split in ("train", "val")
    )
    return train, {"caltech3": val}
