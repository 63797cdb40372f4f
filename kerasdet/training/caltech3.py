"""Photos with one airplane, motorcycle or face each, from Caltech-101, as OverFeat's presets use them."""

from __future__ import annotations

import os

from kerasdet import data
from kerasdet.training.held_back import train_and_val

CLASSES = ("airplane", "motorcycle", "face")
# What a card says of the data.
CARD_DATA = {
    "name": "caltech3", "photos": 1632,
    "source": "Caltech-101, three of its categories, one box a photo; 147 of them, nearly all of "
    "motorcycles, look like one of the 400 held back (kerasdet data doctor)",
    "terms": "research use",
}


def sets(folder: str | os.PathLike) -> tuple[data.Dataset, dict[str, data.Dataset]]:
    """The training set, and the held-back one by name.

    Args:
        folder: holds caltech3/, CSV with the splits train and val.
    """
    return train_and_val(folder, "caltech3", CLASSES)
