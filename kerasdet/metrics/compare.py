"""What a change did, class by class: two evaluations beside each other."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
import statistics
from collections.abc import Mapping
from pathlib import Path

SCORES = "scores.json"


def write_scores(path: str | os.PathLike, metrics: Mapping[str, float], dataset, **more):
    """Writes an evaluation as json; figures that are nan become null.

    Args:
        path: of the file.
        metrics: what `evaluate` gives.
        dataset: the photos that it was on; their number and a digest of their names are written.
        more: what else is to be known, such as the epoch.
    """
    scores = {name: None if math.isnan(value) else value for name, value in metrics.items()}
    names = "\n".join(sorted(os.path.basename(str(sample.path)) for sample in dataset))
    digest = hashlib.sha256(names.encode("utf-8", "surrogateescape")).hexdigest()[:16]
    values = {"data": dataset.name, "photos": len(dataset), "names": digest, **more, "scores": scores}
    text = json.dumps(values, indent=1, ensure_ascii=False)
    Path(path).write_text(text + "\n", encoding="utf-8")


def read_scores(path: str | os.PathLike) -> dict:
    """What `write_scores` has written: data, photos, scores (name -> float, nan for null), and what else.

    Args:
        path: of the file, or of a run's folder.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it holds something else.
    """
    path = Path(path)
    if path.is_dir():
        path /= SCORES
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: there is no such evaluation; kerasdet train writes one into a run's folder, and "
            "kerasdet evaluate with --out"
        )
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        scores = {
            name: math.nan if value is None else float(value) for name, value in found["scores"].items()
        }
        if "AP" not in scores:
            raise KeyError("AP")
        return found | {"scores": scores, "data": found["data"], "photos": found["photos"]}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: holds no evaluation ({error!r}); write it again") from error


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Average precisions before and after a change.

    Attributes:
        names: of the two.
        rows: (class, AP before, AP after), the class that gained most first.
        all: (AP before, AP after) over all classes that both were scored on.
        left_out: classes that only one of the two was scored on.
    """

    names: tuple[str, str]
    rows: list[tuple[str, float, float]]
    all: tuple[float, float]
    left_out: list[str]

    def draw(self):
        """matplotlib.figure.Figure: two bars a class, and the change beside them."""
        from matplotlib.figure import Figure

        figure = Figure(figsize=(8, 1.6 + 0.42 * len(self.rows)), dpi=100, layout="constrained")
        panel = figure.subplots()
        places = range(len(self.rows))
        for side, (name, colour) in enumerate(zip(self.names, ("0.7", "tab:blue"), strict=True)):
            heights = [place + 0.4 * side - 0.2 for place in places]
            panel.barh(heights, [row[side + 1] for row in self.rows], height=0.4, color=colour, label=name)
        for place, (_, before, after) in zip(places, self.rows, strict=True):
            panel.text(
                max(before, after) + 0.01, place, f"{after - before:+.3f}", va="center",
                color="tab:green" if after >= before else "tab:red",
            )
        panel.set_yticks(list(places), [row[0] for row in self.rows])
        panel.invert_yaxis()
        panel.set_xlim(0, max(max(row[1:]) for row in self.rows) + 0.15)  # room for the change
        panel.set_xlabel("AP")
        which = "that both know" if self.left_out else ""
        panel.set_title(f"{self.all[0]:.3f} to {self.all[1]:.3f} over all classes {which}".rstrip())
        panel.legend(loc="lower right")
        return figure


def compare(before: str | os.PathLike, after: str | os.PathLike) -> Comparison:
    """Sets two evaluations on the same photos beside each other.

    Args:
        before, after: as of `read_scores`.

    Raises:
        FileNotFoundError, ValueError: see `read_scores`; or they are of different sets.
    """
    one, other = read_scores(before), read_scores(after)
    sets = [(found["data"], found["photos"]) for found in (one, other)]
    if sets[0] != sets[1]:
        raise ValueError(
            f"{before} was scored on {sets[0][0]!r} ({sets[0][1]} photos) and {after} on {sets[1][0]!r} "
            f"({sets[1][1]} photos); score both on the same photos with kerasdet evaluate"
        )
    # Without a split of its own, a set's validation photos hang on the seed of the run.
    if len({found["names"] for found in (one, other) if "names" in found}) == 2:
        raise ValueError(
            f"{before} and {after} were scored on other photos of {sets[0][0]!r}, {sets[0][1]} each; score "
            "both on the same ones with kerasdet evaluate, or train with the same --seed"
        )
    # nan is a class of which the photos have no object.
    apart = [
        {key[3:]: value for key, value in found["scores"].items() if key.startswith("AP/") and value == value}
        for found in (one, other)
    ]
    shared = [name for name in apart[0] if name in apart[1]]
    if not shared:
        raise ValueError(f"{before} and {after} were scored on no class in common")
    rows = sorted(
        ((name, apart[0][name], apart[1][name]) for name in shared), key=lambda row: row[1] - row[2]
    )
    # Not the AP of the scores: that is also over classes that the other was not scored on.
    means = tuple(statistics.fmean(row[side] for row in rows) for side in (1, 2))
    return Comparison(
        (os.fspath(before), os.fspath(after)), rows, means, sorted(set(apart[0]) ^ set(apart[1])),
    )
