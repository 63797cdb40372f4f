"""benchmark: `.tflite` files beside each other, on one machine and the same photos."""

from __future__ import annotations

import csv
import dataclasses
import json
import math
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from kerasdet.deploy import timing
from kerasdet.deploy.peers import open_detector

MEASURED, SCALED = "measured", "scaled from a table"


@dataclasses.dataclass(frozen=True)
class Row:
    """One detector at one number of threads.

    Attributes:
        name: the file's name, or that of the table's row.
        threads: CPU threads.
        source: "measured", or "scaled from a table": its time is the table's share of the reference's time
            here, its AP the table's.
        milliseconds: median of one inference, with `low` and `high`, the quartiles (nan where scaled).
        ratio: median of its time over the reference's in the same turn; under 1 is faster.
        ratio_low, ratio_high: quartiles of that (nan where scaled).
        AP, AP50: on the data, nan without.
        classes: that it was scored on.
        megabytes: of the file, nan where there is none.
        memory: megabytes that running it takes, nan where it was not run.
    """

    name: str
    threads: int
    source: str
    milliseconds: float
    low: float = math.nan
    high: float = math.nan
    ratio: float = math.nan
    ratio_low: float = math.nan
    ratio_high: float = math.nan
    AP: float = math.nan
    AP50: float = math.nan
    classes: tuple[str, ...] = ()
    megabytes: float = math.nan
    memory: float = math.nan


def benchmark(
    files: Sequence[str | os.PathLike], data=None, threads: Sequence[int] = (2,), rounds: int = 30,
    reference: str | None = None, picture: np.ndarray | None = None, progress: bool = False,
) -> list[Row]:
    """Measures speed, accuracy, size and memory of files.

    Args:
        files: `.tflite` files of ours or others', see `peers.open_detector`. The same one given twice makes
            two rows, which shows how far ratios can be trusted.
        data: a `Dataset` to score on, or None. Each file is scored on those of its classes that it knows.
        threads: numbers of CPU threads.
        rounds: turns each file gets.
        reference: the file that `ratio` is against, or part of its name; None takes the first.
        picture: (H, W, 3) uint8 that the networks look at when timed; None takes the data's first photo, or
            a drawn one.
        progress: show progress bars.

    Returns:
        A row a file and number of threads, in this order.

    Raises:
        FileNotFoundError, ValueError: a file that is missing or no detector; no class in common with the
            data; threads or rounds below 1; a reference that is none of the files, or several.
    """
    if not threads or min(threads) < 1:
        raise ValueError(f"threads is {tuple(threads)}; give numbers of 1 or more, such as 1, 2, 4")
    against = _find(files, reference)
    # All that can be wrong is found before anything takes time.
    detectors = [open_detector(path, max(threads)) for path in files]
    sets = [_known_to(path, detector, data) for path, detector in zip(files, detectors, strict=True)]
    if picture is None:
        picture = _photo(data)
    both = [(i, count) for i in range(len(files)) for count in threads]
    tasks = {(i, count): timing.inference(files[i], count, picture) for i, count in both}
    peaks = {(i, count): timing.memory(files[i], count) for i, count in both}
    times = timing.interleave(tasks, rounds, settle=1, progress=progress)
    scores = [_score(*each, progress) for each in zip(files, detectors, sets, strict=True)]
    rows = []
    for i, count in both:
        low, middle, high = map(float, np.percentile(times[i, count] * 1000, (25, 50, 75)))
        ratios = times[i, count] / times[against, count]
        ratio_low, ratio, ratio_high = map(float, np.percentile(ratios, (25, 50, 75)))
        rows.append(
            Row(
                Path(files[i]).stem, count, MEASURED, middle, low, high, ratio, ratio_low, ratio_high,
                *scores[i], os.path.getsize(files[i]) / 1e6, peaks[i, count] / 1e6,
            )
        )
    return rows


def scaled(path: str | os.PathLike, measured: Sequence[Row]) -> list[Row]:
    """Rows for detectors that cannot be run here, from a table such as `zoo/peers.json`.

    Args:
        path: a json file with `reference`, whose time here gives the scale: `{"file": part of its name,
            "milliseconds": its time in the table, "threads": 2}`; with `sets`, by name: `{"classes": [...]}`;
            and with `peers`: `{"name": ..., "milliseconds": ..., "scores": {set: {"AP": ..., "AP50": ...}}}`.
            A peer with a `file` of its own, part of the name of one that was measured, gets no second row.
        measured: rows of `benchmark`, among them the reference at the table's threads.

    Returns:
        a row for each other peer. It has its AP where the reference was scored on the classes of one of the
        table's sets; nan elsewhere.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it holds something else, or the reference was not measured with its threads.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        table = json.loads(Path(path).read_text(encoding="utf-8"))
        wanted, threads = str(table["reference"]["file"]), int(table["reference"]["threads"])
        unit = float(table["reference"]["milliseconds"])
        sets = {frozenset(known["classes"]): name for name, known in table["sets"].items()}
        peers = [
            (
                str(peer["name"]), peer.get("file"), float(peer["milliseconds"]) / unit,
                {key: (float(score["AP"]), float(score["AP50"])) for key, score in peer["scores"].items()},
            )
            for peer in table["peers"]
        ]
    except (ValueError, KeyError, TypeError, AttributeError, ZeroDivisionError) as error:
        raise ValueError(f"{path}: is no such table ({error!r}); see zoo/peers.json") from error
    given = [row for row in measured if wanted in row.name and row.threads == threads]
    if len(given) != 1:
        names = ", ".join(sorted({f"{row.name} at {row.threads}" for row in measured}))
        raise ValueError(
            f"{path}: its times are scaled by {wanted!r} at {threads} threads, which {len(given)} rows are "
            f"({names}); give that file once, and --threads with {threads}"
        )
    base = given[0]
    there, rows = sets.get(frozenset(base.classes)), []
    for name, file, time, scores in peers:
        if file is None or not any(file in row.name for row in measured):
            ap, ap50 = scores.get(there, (math.nan, math.nan))
            scaled_time, ratio = base.milliseconds * time, base.ratio * time
            rows.append(Row(name, threads, SCALED, scaled_time, ratio=ratio, AP=ap, AP50=ap50))
    return rows


def write(rows: Sequence[Row], path: str | os.PathLike):
    """Writes rows into a `.json` or `.csv` file; what is nan becomes null, or empty."""
    values = []
    for row in rows:
        fields = dataclasses.asdict(row) | {"classes": list(row.classes)}
        values.append({k: None if isinstance(v, float) and math.isnan(v) else v for k, v in fields.items()})
    if Path(path).suffix.lower() == ".json":
        Path(path).write_text(json.dumps(values, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        return
    with Path(path).open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, [field.name for field in dataclasses.fields(Row)])
        table.writeheader()
        table.writerows(value | {"classes": " ".join(value["classes"])} for value in values)


def front(rows: Sequence[Row], figure: str = "AP50") -> list[Row]:
    """The rows that no other beats: none is as fast and better, or as good and faster. The fastest first.

    >>> front([Row("a", 2, MEASURED, 5.0, AP50=0.5), Row("b", 2, MEASURED, 6.0, AP50=0.4)])[0].name
    'a'
    """
    kept = []
    for row in sorted(rows, key=lambda row: (row.milliseconds, -getattr(row, figure))):
        value = getattr(row, figure)
        if not math.isnan(value) and (not kept or value > getattr(kept[-1], figure)):
            kept.append(row)
    return kept


def draw(rows: Sequence[Row], figure: str = "AP50"):
    """matplotlib.figure.Figure: AP against latency, a panel for each number of threads.

    Full dots are measured, hollow ones scaled from a table; a line joins those that none beats.
    """
    from matplotlib.figure import Figure

    counts = sorted({row.threads for row in rows})
    picture = Figure(figsize=(2 + 5.5 * len(counts), 5), dpi=100, layout="constrained")
    panels = picture.subplots(1, len(counts), sharey=True, squeeze=False)[0]
    for panel, count in zip(panels, counts, strict=True):
        shown = [row for row in rows if row.threads == count and not math.isnan(getattr(row, figure))]
        best = front(shown, figure)
        panel.plot(
            [row.milliseconds for row in best], [getattr(row, figure) for row in best], color="0.75",
            zorder=1,
        )
        for row in shown:
            colour = "tab:blue" if row.source == MEASURED else "0.4"
            panel.scatter(
                row.milliseconds, getattr(row, figure), zorder=2, color=colour,
                facecolor=colour if row.source == MEASURED else "white",
            )
        _label(panel, shown, figure)
        panel.set_xlim(left=0)
        panel.margins(x=0.12, y=0.12)
        panel.set_xlabel(f"milliseconds a photo, {count} CPU thread{'s' * (count > 1)}")
        panel.grid(color="0.93")
    panels[0].set_ylabel(figure)
    if any(row.source == SCALED for row in rows):
        picture.supxlabel("hollow: " + SCALED, fontsize="small", color="0.4")
    return picture


def _label(panel, rows, figure):
    """Writes the names beside the dots: to the left in the right half, and not over one another."""
    longest = max((row.milliseconds for row in rows), default=0)
    heights = [getattr(row, figure) for row in rows]
    line = (max(heights, default=0) - min(heights, default=0)) / 18
    taken: list[float] = []
    for row in sorted(rows, key=lambda row: -getattr(row, figure)):
        height = own = getattr(row, figure)
        while any(abs(height - other) < line for other in taken):
            height -= line / 2
        taken.append(height)
        left = row.milliseconds > longest / 2
        panel.annotate(
            f"{row.name}  " if left else f"  {row.name}", (row.milliseconds, own), (row.milliseconds, height),
            fontsize=8, ha="right" if left else "left", va="center",
            arrowprops={"arrowstyle": "-", "color": "0.8"} if height < own else None,
        )


def _find(files, reference: str | None) -> int:
    if reference is None:
        return 0
    stems = [Path(path).stem for path in files]
    for names in (list(map(str, files)), stems):
        if reference in names:  # whole, though it be part of another's or given twice
            return names.index(reference)
    found = [i for i, stem in enumerate(stems) if reference in stem]
    if len(found) != 1:
        names = ", ".join(stems)
        raise ValueError(
            f"the reference is {reference!r}, part of {len(found)} names among {names}; give a part of one"
        )
    return found[0]


def _known_to(path, detector, data):
    if data is None:
        return None
    known = data.known_to(detector)
    if known is None:
        raise ValueError(
            f"{path}: finds none of the classes {', '.join(data.classes)}; leave the file out, or the data"
        )
    return known


def _score(path, detector, data, progress) -> tuple[float, float, tuple[str, ...]]:
    """AP, AP50, and the classes that they are over."""
    if data is None:
        return math.nan, math.nan, ()
    from kerasdet import metrics

    if progress:
        from rich import print as say

        say(f"[dim]{Path(path).name}[/]")
    found = metrics.evaluate(detector, data, progress=progress)
    return found["AP"], found["AP50"], tuple(data.classes)


def _photo(data) -> np.ndarray:
    from kerasdet import photo

    if data is not None:
        return photo.read(data[0].path)
    from kerasdet.deploy.parity import synthetic_photos

    return synthetic_photos(1)[0]
