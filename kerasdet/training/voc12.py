"""The photos of PASCAL VOC 2012 that hold an animal, as the shelf's presets of six classes use them."""

from __future__ import annotations

import os

from kerasdet import data
from kerasdet.training.held_back import train_and_val

# Twenty names are labelled, but of the other fourteen there are too few photos to learn from.
CLASSES = ("cat", "cow", "dog", "horse", "sheep", "person")
# What a card says of the data.
CARD_DATA = {
    "name": "voc12", "photos": 2702,
    "source": "PASCAL VOC 2012, its photos of animals: six of the twenty classes",
    "terms": "flickr photos, research use",
}


def sets(folder: str | os.PathLike) -> tuple[data.Dataset, dict[str, data.Dataset]]:
    """The training set, and the held-back one by name.

    Objects of the other fourteen classes are background, in training and when it is scored: VOC labels
    all twenty throughout, so a sofa is certainly no cat.

    Args:
        folder: holds voc12/, COCO json with the splits train and val.
    """
    return train_and_val(folder, "voc12", CLASSES)
