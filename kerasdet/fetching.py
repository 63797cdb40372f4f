"""Where a preset's weights are: in its folder, or where the user says that they lie."""

from __future__ import annotations

import os
from pathlib import Path

from kerasdet.card import Card

PLACE = "KERASDET_WEIGHTS"
_REMEDY = f"name in {PLACE} the folder zoo/ of a checkout, or an http address that serves it"


def weights_file(folder: Path, card: Card) -> Path:
    """The file of a preset's weights, which an installed package has of the smaller presets only.

    What is not in the preset's folder is looked up as PRESET/FILE in the folder that the environment variable
    KERASDET_WEIGHTS names, or fetched from the address that it names, once, into Keras' own folder of
    downloads. Whoever calls checks the sum.

    Args:
        folder: of the preset.
        card: the preset's.

    Raises:
        FileNotFoundError: it is in none of these places, or the address does not give it.
    """
    own, place = folder / card.weights["file"], os.environ.get(PLACE, "")
    if own.is_file():
        return own
    if not place:
        raise FileNotFoundError(f"{own}: the preset's weights are missing; {_REMEDY}")
    if place.startswith(("http://", "https://")):
        return _fetched(f"{place.rstrip('/')}/{folder.name}/{own.name}", card.weights["sha256"])
    there = Path(place) / folder.name / own.name
    if not there.is_file():
        raise FileNotFoundError(f"{there}: is not there, nor is {own}; {_REMEDY}")
    return there


def _fetched(address: str, sha256: str) -> Path:
    from keras.utils import get_file

    try:
        return Path(get_file(
            # By its sum: another version's file of this name is another file.
            f"{sha256}.weights.h5", address, cache_subdir="kerasdet", file_hash=sha256,
            hash_algorithm="sha256",
        ))
    except Exception as error:  # Keras raises no other
        raise FileNotFoundError(f"{address}: cannot be fetched ({error}); {_REMEDY}") from error
