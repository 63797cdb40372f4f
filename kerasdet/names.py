"""Names of classes and parts, from whoever wrote them."""

from __future__ import annotations

import re
from collections.abc import Iterable

# What breaks a line of `labels.txt`, or tells a terminal to do something.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def check_names(kind: str, names) -> None:
    """Looks at the names that a detector is given.

    Raises:
        ValueError: a text in place of a list of names; what is no text; a name twice, or with a control
            character.
    """
    if isinstance(names, str):
        raise ValueError(f"{kind} is the text {names!r}; give a list of names, such as [{names!r}]")
    if other := [name for name in names if not isinstance(name, str)]:
        raise ValueError(f"{kind} has {other[0]!r}, which is no text; give a name, such as '{other[0]}'")
    if len(set(names)) != len(tuple(names)):
        raise ValueError(f"{kind} {tuple(names)} names one twice; each must have its own name")
    if (odd := with_control(names)) is not None:
        raise ValueError(f"{kind} has {odd!r}, with a line break or another control character; take it out")


def with_control(names: Iterable[str]) -> str | None:
    """The first of the names that has a line break or another control character in it, or None."""
    return next((name for name in names if isinstance(name, str) and _CONTROL.search(name)), None)
