"""Card: what a preset is, what it scores and where it comes from; and the tables made from cards.

A preset's `card.json` is the one place of its figures. README and command line print them from
here.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import math
import os
import re
from pathlib import Path

FILE = "card.json"
PRECISIONS = ("keras", "float32", "float16", "int8")
# Rows of figures: these keys have to be there, every further one is the name of a figure.
_FIGURES = object()

# What a card holds. A type is a value of it, [x] a list of x, {..} an object with exactly these
# keys.
_SCHEMA = {
    "name": str, "aliases": [str], "summary": str, "detector": str, "backbone": str,
    "image_size": int, "classes": [str], "parts": [str], "parameters": int,
    "weights": {"file": str, "sha256": str, "bytes": int},
    "training": {
        "data": [{"name": str, "photos": int, "source": str, "terms": str}],
        "starting_weights": {"name": str, "source": str, "licence": str},
        "device": str, "hours": float, "command": str, "epochs": int,
        "curve": [{"epoch": int, _FIGURES: float}],
    },
    "scores": [
        {
            "data": str, "photos": int, "precision": str, "command": str, "machine": str,
            _FIGURES: float,
        }
    ],
    "latency": [
        {
            "precision": str, "bytes": int, "milliseconds": float, "threads": int, "command": str,
            "machine": str,
        }
    ],
    "deviations": [str],
    "licence": str,
}


@dataclasses.dataclass(frozen=True)
class Card:
    """What a preset is.

    Attributes:
        name: of the preset and its folder; `aliases`, short names that lead to it.
        summary: one sentence.
        detector: name of the class, such as "CSP"; `backbone`, name of the network under it.
        image_size: side of the network's square, pixels.
        classes: names; `parts`, names of further boxes of an object.
        parameters: how many numbers the network learned or took over.
        weights: {"file", "sha256", "bytes"}.
        training: provenance: "data", a list of {"name", "photos", "source", "terms"};
            "starting_weights" {"name", "source", "licence"}; "device", "hours", "command",
            "epochs"; "curve", a list of {"epoch", and figures}, epochs rising.
        scores: a list of {"data", "photos", "precision" (keras, float32, float16, int8), "command",
            "machine", and figures: "AP", "AP50", "MR", "head_AP50" ...}, figures from 0 to 1.
        latency: a list of {"precision", "bytes" of the file, "milliseconds", "threads", "command",
            "machine"}.
        deviations: where the preset departs from the detector's paper, a sentence each.
        licence: of the weights.
    """

    name: str
    aliases: list[str]
    summary: str
    detector: str
    backbone: str
    image_size: int
    classes: list[str]
    parts: list[str]
    parameters: int
    weights: dict
    training: dict
    scores: list[dict]
    latency: list[dict]
    deviations: list[str]
    licence: str

    @classmethod
    def from_dict(cls, values: dict, where: str = "card") -> Card:
        """Makes a card of what `json.load` gives.

        Args:
            values: see the attributes; every key has to be there, lists may be empty.
            where: what messages call it.

        Raises:
            ValueError: names the field that is missing, unknown or wrong.
        """
        values = _checked(values, _SCHEMA, where, "")
        card = cls(**values)
        _check_values(card, where)
        return card

    @classmethod
    def read(cls, folder: str | os.PathLike) -> Card:
        """Reads the card of a preset's folder. Raises FileNotFoundError and ValueError."""
        path = Path(folder) / FILE
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{path}: not JSON: {error}") from error
        return cls.from_dict(values, str(path))

    def write(self, folder: str | os.PathLike) -> None:
        """Writes `card.json` into the preset's folder, after the checks of `from_dict`."""
        path = Path(folder) / FILE
        values = dataclasses.asdict(type(self).from_dict(dataclasses.asdict(self), str(path)))
        path.write_text(json.dumps(values, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")

    def figures(self, data: str, precision: str) -> dict[str, float]:
        """The figures of the score row for a data set and precision; {} where there is none."""
        for row in self.scores:
            if (row["data"], row["precision"]) == (data, precision):
                return {key: value for key, value in row.items() if key not in _SCHEMA["scores"][0]}
        return {}


# === Checks ===


def _checked(value, schema, where: str, at: str):
    """`value` if it is as `schema` says; integers become floats where floats are asked for."""
    if isinstance(schema, dict):
        return _checked_object(value, schema, where, at)
    if isinstance(schema, list):
        if not isinstance(value, (list, tuple)):
            raise ValueError(f"{where}: {at} is {value!r}; it has to be a list")
        return [_checked(item, schema[0], where, f"{at}[{i}]") for i, item in enumerate(value)]
    if schema is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if not isinstance(value, schema) or isinstance(value, bool):
        kind = {str: "text", int: "a whole number", float: "a number"}[schema]
        raise ValueError(f"{where}: {at} is {value!r}; it has to be {kind}")
    if schema is float and not math.isfinite(value):
        raise ValueError(f"{where}: {at} is {value}; leave a figure out that could not be measured")
    return value


def _checked_object(value, schema: dict, where: str, at: str) -> dict:
    if not isinstance(value, dict):
        raise ValueError(f"{where}: {at or 'the whole'} is {value!r}; it has to be an object")
    prefix = f"{at}." if at else ""
    known = [key for key in schema if key is not _FIGURES]
    for key in known:
        if key not in value:
            raise ValueError(f"{where}: {prefix}{key} is missing")
    for key in value:
        if key not in schema and _FIGURES not in schema:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ValueError(f"{where}: {prefix}{key} is not a field of a card{hint}")
    return {
        key: _checked(item, schema.get(key, schema.get(_FIGURES)), where, f"{prefix}{key}")
        for key, item in value.items()
    }


def _check_values(card: Card, where: str):
    def insist(right, text):
        if not right:
            raise ValueError(f"{where}: {text}")

    insist(card.classes, "classes is empty; name one or more")
    insist(len(set(card.classes)) == len(card.classes), f"classes {card.classes} names one twice")
    for field in ("image_size", "parameters"):
        insist(getattr(card, field) > 0, f"{field} is {getattr(card, field)}; it has to be above 0")
    sha256 = card.weights["sha256"]
    insist(
        re.fullmatch("[0-9a-f]{64}", sha256),
        f"weights.sha256 is {sha256!r}; it has to be 64 hexadecimal digits, in small letters",
    )
    file = card.weights["file"]
    insist(
        file and Path(file).name == file,
        f"weights.file is {file!r}; it has to be a file in the preset's own folder",
    )
    for field in ("scores", "latency"):
        for i, row in enumerate(getattr(card, field)):
            insist(
                row["precision"] in PRECISIONS,
                f"{field}[{i}].precision is {row['precision']!r}; one of {', '.join(PRECISIONS)}",
            )
    for i, row in enumerate(card.scores):
        figures = {key: value for key, value in row.items() if key not in _SCHEMA["scores"][0]}
        insist(figures, f"scores[{i}] has no figure, such as AP50")
        for key, value in figures.items():
            insist(0 <= value <= 1, f"scores[{i}].{key} is {value}; figures go from 0 to 1")
    epochs = [row["epoch"] for row in card.training["curve"]]
    insist(epochs == sorted(set(epochs)), f"training.curve: the epochs {epochs} do not rise")


# === Tables ===

_SCORE_COLUMNS = ("preset", "data", "photos", "precision", "AP", "AP50", "MR", "head AP50")
_PICTURES = (".jpg", ".jpeg", ".png")
_ABOUT_COLUMNS = ("", "preset", "what it finds", "trained on", "licence")
_SUMMARY_COLUMNS = ("preset", "data", "photos", "AP50", "AP", "AP int8", "MR", "head AP50")
_FILE_COLUMNS = ("preset", "input", "precision", "size", "latency", "machine")


def score_rows(cards) -> list[tuple[str, ...]]:
    """Cells of the table of scores, below `("preset", "data", ...)`; one row a score of a card."""
    return [
        (
            card.name, row["data"], str(row["photos"]), row["precision"],
            *(_figure(row.get(key)) for key in ("AP", "AP50", "MR", "head_AP50")),
        )
        for card in cards
        for row in card.scores
    ]


def file_rows(cards) -> list[tuple[str, ...]]:
    """Cells of the table of exported files; one row a latency of a card."""
    return [
        (
            card.name, f"{card.image_size} px", row["precision"], f"{row['bytes'] / 1e6:.1f} MB",
            f"{row['milliseconds']:.1f} ms", f"{row['machine']}, {row['threads']} threads",
        )
        for card in cards
        for row in card.latency
    ]


def summary_rows(cards) -> list[tuple[str, ...]]:
    """Cells of the README's table: one row a card and data set, in Keras and the AP of the int8 file.

    What a recipe trained beside the preset, to compare, is no score of the preset's.
    """
    return [
        (
            card.name, row["data"], str(row["photos"]), _figure(row.get("AP50")),
            _figure(row.get("AP")), _figure(card.figures(row["data"], "int8").get("AP")),
            _figure(row.get("MR")), _figure(row.get("head_AP50")),
        )
        for card in cards
        for row in card.scores
        if row["precision"] == "keras" and "--ablation" not in row["command"]
    ]


def in_words(card: Card) -> str:
    """What a recipe's docstring says of the time that it takes and the scores that it reaches."""
    training, first = card.training, card.scores[0]
    return (
        f"It takes {training['hours']:.1f} h on {training['device']}, and reaches AP50 {first['AP50']:.3f}, "
        f"AP {first['AP']:.3f} on the {first['photos']} photos of {first['data']} that it is not trained on."
    )


def picture_of(folder: Path) -> Path | None:
    """The picture in a preset's folder."""
    return next((file for file in sorted(folder.iterdir()) if file.suffix.lower() in _PICTURES), None)


def about_rows(presets) -> list[tuple[str, ...]]:
    """Cells of the README's table of presets: picture, names, what it finds, data with terms, licence."""
    return [
        (
            f'<img src="zoo/{folder.name}/{file.name}" width="140">' if (file := picture_of(folder)) else "",
            "<br>".join((card.name, *(f"`{alias}`" for alias in card.aliases))), card.summary,
            "<br>".join(f"{d['name']}, {d['photos']} photos ({d['terms']})" for d in card.training["data"]),
            card.licence,
        )
        for card, folder in presets
    ]


def markdown(presets) -> str:
    """The tables of the README: the presets, what they score, and how large and fast their files are.

    Args:
        presets: cards, each with the preset's folder, which is in the README's zoo/.
    """
    cards = [card for card, _ in presets]
    tables = [(_ABOUT_COLUMNS, about_rows(presets)), (_SUMMARY_COLUMNS, summary_rows(cards))]
    parts = [_markdown_table(columns, rows) for columns, rows in tables if rows]
    return "\n\n".join([*parts, *_files_side_by_side(cards)])


def _files_side_by_side(cards) -> list[str]:
    """A table for each machine, one row a card, with a cell for each precision."""
    rows, found = file_rows(cards), []
    for machine in dict.fromkeys(row[-1] for row in rows):
        cells: dict[tuple[str, str], dict[str, str]] = {}
        for name, side, kind, size, latency, where in rows:
            if where == machine:
                cells.setdefault((name, side), {})[kind] = f"{size}, {latency}"
        kinds = [kind for kind in PRECISIONS if any(kind in own for own in cells.values())]
        table = [(*head, *(own.get(kind, "") for kind in kinds)) for head, own in cells.items()]
        text = f"Size of the exported file, and time of an inference, on {machine}:"
        found.append(f"{text}\n\n{_markdown_table(('preset', 'input', *kinds), table)}")
    return found


def _markdown_table(columns, rows) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def _figure(value) -> str:
    return "" if value is None else f"{value:.3f}"


def shelf_table(cards):
    """A `rich.table.Table` with one row a preset; its short names come first."""
    from rich import box
    from rich.table import Column, Table

    cards = list(cards)
    # A name that is cut off cannot be typed: its column keeps its width on any terminal.
    longest = max((len(card.name) for card in cards), default=0)
    table = Table(
        Column("preset", min_width=longest, no_wrap=True), Column("finds", overflow="fold"),
        Column("input", no_wrap=True), Column("score", no_wrap=True),
        box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0),
    )
    for card in cards:
        first = next((row for row in card.scores if row["precision"] == "keras"), None)
        score = f"AP50 {_figure(first.get('AP50'))}\non {first['data']}" if first else ""
        finds = ", ".join(card.classes[:4]) + (" ..." if len(card.classes) > 4 else "")
        if card.parts:
            finds += f" (with {', '.join(card.parts)})"
        table.add_row(
            "\n".join((*(f"[bold]{alias}[/]" for alias in map(_plain, card.aliases)), card.name)), finds,
            f"{card.image_size} px", score,
        )
    return table


def card_tables(card: Card):
    """A `rich` group that shows the whole card."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    training, start, weights = card.training, card.training["starting_weights"], card.weights
    about = Table.grid(padding=(0, 2))
    for key, value in (
        ("preset", card.name), ("also", ", ".join(card.aliases)), ("", card.summary),
        ("detector", f"{card.detector} on {card.backbone}, {card.image_size} px"),
        ("classes", ", ".join(card.classes)), ("parts", ", ".join(card.parts)),
        ("parameters", f"{card.parameters:,}"), ("licence", card.licence),
        ("weights", f"{weights['bytes'] / 1e6:.1f} MB, sha256 {weights['sha256'][:12]}..."),
        ("started from", f"{start['name']} ({start['licence']}; {start['source']})"),
        *(
            ("trained on", f"{d['name']}, {d['photos']} photos ({d['terms']}; {d['source']})")
            for d in training["data"]
        ),
        ("epochs", f"{training['epochs']}, {training['hours']:.1f} h on {training['device']}"),
        ("with", training["command"]),
        *(("departs", text) for text in card.deviations),
    ):
        if value:
            about.add_row(f"[bold]{key}", _plain(value))
    parts = [about]
    for columns, rows in ((_SCORE_COLUMNS, score_rows([card])), (_FILE_COLUMNS, file_rows([card]))):
        if rows:
            table = Table(*columns[1:])
            for row in rows:
                table.add_row(*map(_plain, row[1:]))
            parts.append(table)
    # Most figures come from one or two commands: each is said once, not row by row.
    commands = dict.fromkeys(row["command"] for row in (*card.scores, *card.latency))
    if commands:
        parts.append(Text("\n".join(("measured by", *(f"  {command}" for command in commands)))))
    return Group(*parts)


def _plain(text: str) -> str:
    """`text` with its square brackets shown, not read as Rich's markup."""
    from rich.markup import escape

    return escape(text)
