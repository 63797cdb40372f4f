"""Names of classes and parts, from whoever wrote them."""

from __future__ import annotations

import re
from collections.abc import Iterable

# What breaks a line of `labels.txt`, or tells a terminal to do something.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def with_control(names: Iterable[str]) -> str | None:
    """The first of the names that has a line break or another control character in it, or None."""
    return next((name for name in names if isinstance(name, str) and _CONTROL.search(name)), None)
