"""The shelf as one HTML page: every preset's card and picture, and AP against latency beside the peers.

The page holds its pictures and needs no network. What cards say is shown as text, whoever wrote them.
"""

from __future__ import annotations

import base64
import html
import io
import itertools
import json
from pathlib import Path

from kerasdet.card import Card, file_rows, picture_of, summary_rows

PEERS = "peers.json"
# A plot's file, by the set's name.
PLOT = "ap_latency_{}.svg"
# Stand for the page's colours, light or dark, in the plot.
_INK, _SOFT, _RULE, _OURS, _PEER = "#010101", "#020202", "#030303", "#040404", "#050505"
_VARIABLES = {_INK: "--ink", _SOFT: "--soft", _RULE: "--rule", _OURS: "--ours", _PEER: "--peer"}
_FILE_HEAD = ("file", "size", "latency", "machine")
# Times so many times apart are drawn by powers.
_FAR = 20
_SCORE_HEAD = ("held-back photos", "number", "AP50", "AP", "AP int8", "MR", "head AP50")

_COLOURS = """
:root { color-scheme: light dark; --page: #f6f7f9; --paper: #ffffff; --ink: #1d2229; --soft: #5c6670;
  --rule: #dfe3e8; --ours: #0b6bcb; --peer: #8a939d; --tint: #eaf3fd; }
@media (prefers-color-scheme: dark) { :root { --page: #14171b; --paper: #1c2026; --ink: #e8ebef;
  --soft: #a0a9b4; --rule: #333a43; --ours: #62b0ff; --peer: #848e99; --tint: #1f2f40; } }
"""
_STYLE = _COLOURS + """* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
main { max-width: 66rem; margin: 0 auto; padding: 2.5rem 1.25rem 4rem; }
h1 { font-size: 2.1rem; letter-spacing: -.02em; margin: 0; }
h2 { font-size: 1.3rem; letter-spacing: -.01em; margin: 0; overflow-wrap: anywhere; }
p { margin: .5rem 0; }
.soft, figcaption, summary, th { color: var(--soft); }
.plot, article { background: var(--paper); border: 1px solid var(--rule); border-radius: 12px;
  padding: 1.5rem; margin: 1.75rem 0 0; }
.plot div { display: grid; gap: 1rem;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 22rem), 1fr)); }
.plot svg { width: 100%; height: auto; display: block; }
figcaption { font-size: .875rem; margin-top: .75rem; }
article { display: grid; gap: 1.25rem 1.75rem; grid-template-columns: minmax(0, 15rem) minmax(0, 1fr); }
article img { width: 100%; border-radius: 8px; display: block; }
.tags { display: flex; flex-wrap: wrap; gap: .375rem; margin: .625rem 0 0; padding: 0; list-style: none; }
.tags li { background: var(--tint); color: var(--ours); border-radius: 99px; padding: .05rem .7rem;
  font-size: .8125rem; }
.wide { overflow-x: auto; margin-top: .875rem; }
table { border-collapse: collapse; width: 100%; font-size: .875rem; font-variant-numeric: tabular-nums; }
th { text-align: left; font-weight: 500; }
th, td { padding: .3rem .9rem .3rem 0; border-bottom: 1px solid var(--rule); white-space: nowrap; }
td:first-child { white-space: normal; }
tr:last-child td { border-bottom: 0; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .25rem 1rem; font-size: .875rem;
  margin: .875rem 0 0; }
dt { color: var(--soft); }
dd { margin: 0; overflow-wrap: anywhere; }
details { margin-top: .75rem; font-size: .875rem; }
summary { cursor: pointer; }
code { font: .875em ui-monospace, "SF Mono", Menlo, monospace; }
@media (max-width: 44rem) { article { grid-template-columns: minmax(0, 1fr); }
  article img { max-width: 22rem; } }
"""


def page(presets: list[tuple[Card, Path]], peers: dict | None = None) -> str:
    """The page.

    Args:
        presets: cards, each with the preset's folder, where its picture is.
        peers: what `peers.json` holds, see `read_peers`; None draws no plot.

    Returns:
        HTML, whole in itself.
    """
    cards = [card for card, _ in presets]
    parts = [_article(card, folder) for card, folder in presets]
    plot = _plot_figure(cards, peers) if peers else ""
    number = f"{len(cards)} preset" + ("s" if len(cards) != 1 else "")
    return (
        "<!doctype html>\n<html lang=en>\n<meta charset=utf-8>\n"
        '<meta name=viewport content="width=device-width, initial-scale=1">\n'
        f"<title>kerasdet: the zoo</title>\n<style>{_STYLE}</style>\n<main>\n<h1>The zoo</h1>\n"
        f"<p class=soft>{number} of kerasdet. All figures are from the presets' cards, which name the "
        "command behind each: <code>kerasdet zoo NAME</code>. AP50 and AP are COCO's, on photos that the "
        "preset was not trained on; MR is the log-average miss rate of people, lower is better. Latencies "
        "are of the CPU named.</p>\n"
        f"{plot}{''.join(parts)}</main>\n</html>\n"
    )


def read_peers(shelves: list[Path]) -> dict | None:
    """What the first shelf that has a `peers.json` says of other detectors; None where there is none.

    Raises:
        ValueError: it is not as it should be.
    """
    path = next((shelf / PEERS for shelf in shelves if (shelf / PEERS).is_file()), None)
    if path is None:
        return None
    try:
        peers = json.loads(path.read_text(encoding="utf-8"))
        for peer in peers["peers"]:
            float(peer["milliseconds"]) * float(peers["scale"])
            str(peer["name"]), [float(row["AP50"]) for row in peer["scores"].values()]
        for told in peers["sets"].values():
            str(told["title"]), list(told["classes"])
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise ValueError(f"{path}: not a table of peers ({error!r}); see the one in zoo/") from error
    return peers


# === A preset ===


def _article(card: Card, folder: Path) -> str:
    training, start = card.training, card.training["starting_weights"]
    tags = [*card.classes[:8], *(["..."] if len(card.classes) > 8 else []), *(f"+ {p}" for p in card.parts)]
    about = {
        "detector": f"{card.detector} on {card.backbone}, {card.image_size} px",
        "parameters": f"{card.parameters:,}",
        "licence": card.licence,
        **{
            f"trained on {i}" if i else "trained on": f"{d['name']}, {d['photos']} photos: {d['source']} "
            f"({d['terms']})" for i, d in enumerate(training["data"])
        },
        "started from": f"{start['name']} ({start['licence']})",
        "trained for": f"{training['epochs']} epochs, {training['hours']:.1f} h on {training['device']}",
    }
    names = f"<code>{_text(card.name)}</code>"
    also = ", ".join(f"<code>{_text(name)}</code>" for name in card.aliases)
    rows = "".join(
        f"<dt>{'' if key[-1].isdigit() else _text(key)}</dt><dd>{_text(value)}</dd>"
        for key, value in about.items()
    )
    departs = "".join(f"<li>{_text(text)}</li>" for text in card.deviations)
    if departs:
        departs = (
            f"<details><summary>Where it departs from its paper ({len(card.deviations)})</summary>"
            f"<ul>{departs}</ul></details>"
        )
    return (
        f'<article id="{_text(card.name)}"><div>{_picture(folder, card)}</div><div><h2>{names}</h2>'
        f"<p>{_text(card.summary)}{f' <span class=soft>Also {also}.</span>' if also else ''}</p>"
        f"<ul class=tags>{''.join(f'<li>{_text(tag)}</li>' for tag in tags)}</ul>"
        f"{_table(_SCORE_HEAD, [row[1:] for row in summary_rows([card])])}"
        f"{_table(_FILE_HEAD, [row[2:] for row in file_rows([card])])}"
        f"<dl>{rows}</dl>{departs}</div></article>\n"
    )


def _picture(folder: Path, card: Card) -> str:
    file = picture_of(folder)
    if file is None:
        return "<p class=soft>no picture</p>"
    kind = "png" if file.suffix.lower() == ".png" else "jpeg"
    data = base64.b64encode(file.read_bytes()).decode()
    return f'<img alt="what {_text(card.name)} finds" src="data:image/{kind};base64,{data}">'


def _table(head, rows) -> str:
    """A table without the columns that are empty in every row."""
    full = [place for place in range(len(head)) if any(row[place] for row in rows)]
    if not rows:
        return ""
    cells = "".join(f"<th>{_text(head[place])}</th>" for place in full)
    body = "".join(f"<tr>{''.join(f'<td>{_text(row[p])}</td>' for p in full)}</tr>" for row in rows)
    return f"<div class=wide><table><tr>{cells}</tr>{body}</table></div>"


def _text(value) -> str:
    return html.escape(str(value))


# === AP against latency ===


def _plot_figure(cards: list[Card], peers: dict) -> str:
    panels = "".join(draw_panel(data, cards, peers) for data in _scored(cards, peers))
    return (
        f"<figure class=plot><div>{panels}</div><figcaption>AP50 against the time of one inference. A "
        "preset has a point for each precision, the full one is the last, int8; it has none if its time is "
        "of another machine than the peers'. In grey, the peers: "
        f"{_text(peers.get('about', ''))} Their times are scaled from that table, times "
        f"{peers['scale']:.2f}: {_text(peers.get('scaled_by', ''))}. The presets were trained on other "
        "photos of the same sets, the peers on none of them.</figcaption></figure>\n"
    )


def _scored(cards: list[Card], peers: dict) -> list[str]:
    """The sets of the peers' table on which there is something to draw."""
    by_peers = {data for peer in peers["peers"] for data in peer["scores"]}
    return [data for data in peers["sets"] if data in by_peers or points(cards, peers, data)]


def drawings(cards: list[Card], peers: dict) -> dict[str, str]:
    """The plots as files of their own, for the README: name of a set -> SVG, which holds its points too."""
    found = {}
    for data in _scored(cards, peers):
        svg = draw_panel(data, cards, peers)
        end = svg.rindex("</svg>")
        said = f"<style>{_COLOURS}</style><desc>{_text(json.dumps(points(cards, peers, data)))}</desc>"
        found[data] = f"{svg[:end]}{said}\n</svg>\n"
    return found


def points(cards: list[Card], peers: dict, data: str) -> dict[str, list[tuple[float, float]]]:
    """Preset -> (milliseconds, AP50) of each precision on a set, for those of just its classes.

    Where the peers' table names its machine, times of others are left out: they cannot be compared.
    """
    wanted, machine = set(peers["sets"][data]["classes"]), peers.get("machine")
    found = {}
    for card in cards:
        rows = [
            (row["milliseconds"], card.figures(data, row["precision"]).get("AP50"))
            for row in card.latency
            if set(card.classes) == wanted and machine in (None, row["machine"])
        ]
        if rows := [row for row in rows if row[1] is not None]:
            found[card.name] = rows
    return found


def draw_panel(data: str, cards: list[Card], peers: dict) -> str:
    """One of the peers' sets as SVG, in the page's colours."""
    import numpy as np
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    ours = points(cards, peers, data)
    others = {
        peer["name"]: [(peer["milliseconds"] * peers["scale"], peer["scores"][data]["AP50"])]
        for peer in peers["peers"] if data in peer["scores"]
    }
    style = {
        "svg.fonttype": "none", "svg.hashsalt": data, "font.family": "sans-serif", "font.size": 10,
        "text.color": _INK,
    }
    with rc_context(style):
        figure = Figure(figsize=(4.9, 3.9), layout="constrained")
        axes = figure.subplots()
        for rows in others.values():
            axes.plot(*zip(*rows, strict=True), "D", color=_PEER, markersize=6)
        for rows in ours.values():
            milliseconds, scores = zip(*rows, strict=True)
            axes.plot(milliseconds, scores, "-", color=_OURS, linewidth=1.5)
            axes.plot(milliseconds[:-1], scores[:-1], "o", color=_OURS, markersize=6, markerfacecolor="none")
            axes.plot(milliseconds[-1:], scores[-1:], "o", color=_OURS, markersize=8)
        every = [row for rows in (*others.values(), *ours.values()) for row in rows]
        low = min(score for _, score in every)
        _set_times(axes, [time for time, _ in every])
        axes.set_ylim(low - 0.12 * (1 - low), max(score for _, score in every) + 0.12 * (1 - low))
        axes.set_title(peers["sets"][data]["title"], loc="left", fontsize=11, fontweight="bold")
        axes.set_xlabel("milliseconds, faster to the left")
        axes.set_ylabel("AP50")
        axes.grid(color=_RULE, linewidth=0.8)
        axes.set_axisbelow(True)
        axes.spines[:].set_visible(False)
        axes.tick_params(colors=_INK, length=0)
        axes.xaxis.label.set_color(_INK)
        axes.yaxis.label.set_color(_INK)
        short = {card.name: next(iter(card.aliases), card.name) for card in cards}
        labels = [(short[name], rows[-1], _OURS) for name, rows in ours.items()]
        labels += [(name, rows[0], _SOFT) for name, rows in others.items()]
        lines = [
            np.add(np.multiply(a, 1 - share), np.multiply(b, share))
            for rows in ours.values() for a, b in itertools.pairwise(rows) for share in np.linspace(0, 1, 20)
        ]
        _write_labels(axes, labels, every, lines)
        file = io.StringIO()
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    svg = file.getvalue()
    svg = svg[svg.index("<svg") :]
    for colour, variable in _VARIABLES.items():
        svg = svg.replace(colour, f"var({variable})")
    return svg


def _set_times(axes, times: list[float]) -> None:
    """From 0 on; where some take many times as long as others, by powers."""
    first, last = min(times), max(times)
    if last <= _FAR * first:
        axes.set_xlim(0, 1.15 * last)
        return
    axes.set_xscale("log")
    axes.set_xlim(first / 1.6, last * 1.3)
    ticks = [n * 10**power for power in range(-2, 5) for n in (1, 2, 5)]
    axes.set_xticks([t for t in ticks if first / 1.6 <= t <= last * 1.3])
    axes.xaxis.set_major_formatter("{x:g}")
    axes.minorticks_off()


# Where a name may stand beside its point, the best place first: x, y in points, and how it is aligned.
_BESIDE = (
    (9, 0, "left", "center"), (-9, 0, "right", "center"), (0, 8, "center", "bottom"),
    (0, -8, "center", "top"), (8, 10, "left", "bottom"), (8, -10, "left", "top"),
    (-8, 10, "right", "bottom"), (-8, -10, "right", "top"), (0, 16, "center", "bottom"),
    (0, -16, "center", "top"), (8, 22, "left", "bottom"), (-8, 22, "right", "bottom"),
    (8, -22, "left", "top"), (-8, -22, "right", "top"), (0, 28, "center", "bottom"),
    (0, -28, "center", "top"),
)
_TURNS = 5


def _write_labels(axes, labels: list, every: list, lines: list) -> None:
    """Writes each name beside its point, where they hide least of points, lines and each other."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    axes.figure.draw_without_rendering()
    renderer = FigureCanvasAgg(axes.figure).get_renderer()
    marks = [axes.transData.transform(point) for point in (*every, *lines)]
    frame = axes.get_window_extent(renderer)
    texts, boxes, alone = [], [], []
    for name, point, colour in labels:
        texts.append([
            axes.annotate(
                name, point, (x, y), textcoords="offset points", ha=side, va=base, color=colour, fontsize=9
            )
            for x, y, side, base in _BESIDE
        ])
        boxes.append([text.get_window_extent(renderer) for text in texts[-1]])
        # What a place costs whatever the other names do; of two as good the one that comes first.
        alone.append([
            sum(box.padded(6).contains(*mark) for mark in marks) + number / 100
            + 5 * (box.x0 < frame.x0 or box.x1 > frame.x1 or box.y0 < frame.y0 or box.y1 > frame.y1)
            for number, box in enumerate(boxes[-1])
        ])
    chosen: dict[int, int] = {}

    def cost(label: int, place: int) -> float:
        others = (boxes[other][at] for other, at in chosen.items() if other != label)
        return alone[label][place] + 10 * sum(boxes[label][place].padded(1).overlaps(box) for box in others)

    # One after the other, and then each again, now that the others have a place.
    for _ in range(_TURNS):
        for label in range(len(labels)):
            chosen[label] = min(range(len(_BESIDE)), key=lambda place, label=label: cost(label, place))
    for label, row in enumerate(texts):
        for place, text in enumerate(row):
            if place != chosen[label]:
                text.remove()
