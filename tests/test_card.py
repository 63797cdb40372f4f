"""Cards: what is checked, and the tables made of them."""

import copy
import dataclasses
import html
import io
import json
import re
from pathlib import Path

import pytest

from kerasdet import card, zoo, zoo_page
from kerasdet.card import Card

README = Path(__file__).parents[1] / "README.md"
VALUES = {
    "name": "tiny_64_people", "aliases": ["tiny"], "summary": "Finds people.", "detector": "CSP",
    "backbone": "mobilenet_v2", "image_size": 64, "classes": ["person"], "parts": ["head"],
    "parameters": 1234567, "weights": {"file": "w.h5", "sha256": "0f" * 32, "bytes": 2_000_000},
    "training": {
        "data": [{"name": "street", "photos": 7, "source": "a site", "terms": "CC BY 4.0"}],
        "starting_weights": {"name": "ImageNet", "source": "keras", "licence": "Apache-2.0"},
        "device": "CPU", "hours": 2, "command": "python recipe.py", "epochs": 3,
        "curve": [{"epoch": 1, "val_AP": 0.1}, {"epoch": 3, "val_AP": 0.3}],
    },
    "scores": [
        {
            "data": "street [val]", "photos": 12, "precision": "keras", "AP": 0.51234, "AP50": 0.75,
            "head_AP50": 0.25, "command": "a", "machine": "b",
        },
        {
            "data": "street [val]", "photos": 12, "precision": "int8", "AP": 0.5, "AP50": 0.74,
            "MR": 0.3, "command": "a", "machine": "b",
        },
    ],
    "latency": [
        {
            "precision": "int8", "bytes": 1_250_000, "milliseconds": 3.21, "threads": 2,
            "command": "none", "machine": "a CPU",
        }
    ],
    "deviations": [], "licence": "Apache-2.0",
}


def changed(path: str, value) -> dict:
    """VALUES with the entry at a dotted path replaced, or removed for `...`."""
    values = copy.deepcopy(VALUES)
    *way, last = [int(key) if key.isdigit() else key for key in path.split(".")]
    place = values
    for key in way:
        place = place[key]
    if value is ...:
        del place[last]
    else:
        place[last] = value
    return values


def test_a_whole_card_is_read_as_it_is_and_written_back(tmp_path):
    made = Card.from_dict(VALUES)
    assert dataclasses.asdict(made) == VALUES
    made.write(tmp_path)
    assert Card.read(tmp_path) == made


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("licence", ..., "licence is missing"),
        ("training.data.0.terms", ..., r"training\.data\[0\]\.terms is missing"),
        ("training.starting_weights.licence", ..., "starting_weights.licence is missing"),
        ("licens", "MIT", "licens is not a field of a card; did you mean 'licence'"),
        ("image_size", "64", "image_size is '64'; it has to be a whole number"),
        ("image_size", True, "image_size is True; it has to be a whole number"),
        ("image_size", 0, "image_size is 0; it has to be above 0"),
        ("classes", "person", "classes is 'person'; it has to be a list"),
        ("classes", [], "classes is empty"),
        ("classes", ["a", "a"], "names one twice"),
        ("weights.sha256", "0F" * 32, "64 hexadecimal digits"),
        ("weights.file", "../w.h5", "a file in the preset's own folder"),
        ("scores.0.AP", "high", r"scores\[0\]\.AP is 'high'; it has to be a number"),
        ("scores.0.AP50", 75.0, r"scores\[0\]\.AP50 is 75\.0; figures go from 0 to 1"),
        ("scores.0.AP", float("nan"), "leave a figure out that could not be measured"),
        ("scores.1.precision", "int4", r"scores\[1\]\.precision is 'int4'; one of keras"),
        ("training.curve.1.epoch", 1, r"epochs \[1, 1\] do not rise"),
    ],
)
def test_a_wrong_card_says_what_is_wrong(path, value, message):
    with pytest.raises(ValueError, match=f"^card.json: .*{message}"):
        Card.from_dict(changed(path, value), "card.json")


def test_a_score_needs_a_figure():
    row = {key: VALUES["scores"][0][key] for key in ("data", "photos", "precision", "command")}
    with pytest.raises(ValueError, match=r"scores\[0\] has no figure"):
        Card.from_dict(changed("scores", [row | {"machine": "b"}]))


def test_a_broken_file_is_named(tmp_path):
    (tmp_path / "card.json").write_text("{")
    with pytest.raises(ValueError, match=r"card\.json: not JSON"):
        Card.read(tmp_path)


def test_figures_of_a_row():
    made = Card.from_dict(VALUES)
    assert made.figures("street [val]", "int8") == {"AP": 0.5, "AP50": 0.74, "MR": 0.3}
    assert made.figures("street [val]", "float16") == {}


def test_in_words():
    assert card.in_words(Card.from_dict(VALUES)) == (
        "It takes 2.0 h on CPU, and reaches AP50 0.750, AP 0.512 on the 12 photos of street [val] that it is "
        "not trained on."
    )


def test_markdown(tmp_path):
    (folder := tmp_path / "tiny_64_people").mkdir()
    (folder / "found.jpg").touch()
    assert card.markdown([(Card.from_dict(VALUES), folder)]) == "\n".join([
        "|  | preset | what it finds | trained on | licence |",
        "| --- | --- | --- | --- | --- |",
        '| <img src="zoo/tiny_64_people/found.jpg" width="140"> | tiny_64_people<br>`tiny` | Finds '
        "people. | street, 7 photos (CC BY 4.0) | Apache-2.0 |",
        "",
        "| preset | data | photos | AP50 | AP | AP int8 | MR | head AP50 |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
        "| tiny_64_people | street [val] | 12 | 0.750 | 0.512 | 0.500 |  | 0.250 |",
        "",
        "Size of the exported file, and time of an inference, on a CPU, 2 threads:",
        "",
        "| preset | input | int8 |",
        "| --- | --- | --- |",
        "| tiny_64_people | 64 px | 1.2 MB, 3.2 ms |",
    ])


def test_each_machine_has_a_table_and_an_ablation_is_no_score(tmp_path):
    row = VALUES["latency"][0]
    first = Card.from_dict(changed("latency", [row, row | {"precision": "float32", "milliseconds": 7.0}]))
    score = VALUES["scores"][0] | {"data": "street, without head", "command": "python recipe.py --ablation"}
    other = Card.from_dict(
        changed("latency", [row | {"machine": "a phone"}]) | {"scores": [*VALUES["scores"], score]}
    )
    text = card.markdown([(first, tmp_path), (other, tmp_path)])
    assert "without head" not in text and text.count("| tiny_64_people | street [val] | 12 ") == 2
    _, one, two = text.split("Size of the exported file, and time of an inference, on ")
    assert one.split("\n")[::2][:2] == ["a CPU, 2 threads:", "| preset | input | float32 | int8 |"]
    assert "| tiny_64_people | 64 px | 1.2 MB, 7.0 ms | 1.2 MB, 3.2 ms |" in one
    assert two.startswith("a phone, 2 threads:") and "| tiny_64_people | 64 px | 1.2 MB, 3.2 ms |" in two


def test_names_are_whole_on_a_narrow_terminal():
    from rich.console import Console

    console = Console(width=80, record=True, file=open("/dev/null", "w"))
    console.print(card.shelf_table(zoo.cards()))
    text = console.export_text()
    for each in zoo.cards():
        assert each.name in text and all(alias in text for alias in each.aliases)
    assert "AP50 0.673" in text and "on voc12" in text


def test_every_figures_command_is_told():
    from rich.console import Console

    console = Console(width=200, record=True, file=io.StringIO())
    made = Card.from_dict(changed("scores.0.command", "python [b]score.py[/b]"))
    console.print(card.card_tables(made))
    lines = [line.strip() for line in console.export_text().splitlines()]
    assert lines[lines.index("measured by") + 1 :] == ["python [b]score.py[/b]", "a", "none"]


def test_terminal_tables_show_brackets_as_they_are():
    from rich.console import Console

    made = Card.from_dict(VALUES)
    console = Console(width=160, record=True, file=open("/dev/null", "w"))
    console.print(card.shelf_table([made]), card.card_tables(made))
    text = console.export_text()
    for part in (
        "tiny_64_people", "street [val]", "int8", "0.740", "1,234,567", "CC BY 4.0", "0.512", "3.2 ms",
    ):
        assert part in text


# === The shelf of this repository ===


def test_the_readme_shows_what_the_cards_say(monkeypatch):
    monkeypatch.delenv(zoo.SHELVES, raising=False)
    found = re.search(r"<!-- zoo:begin -->\n(.*?)<!-- zoo:end -->", README.read_text(), re.DOTALL)
    wanted = card.markdown(zoo.presets())
    assert found.group(1).strip() == wanted, "paste the output of `kerasdet zoo --markdown`"


def test_the_readmes_plots_show_what_the_cards_say(monkeypatch):
    monkeypatch.delenv(zoo.SHELVES, raising=False)
    peers, readme = zoo_page.read_peers(zoo.shelves()), README.read_text()
    for data in peers["sets"]:
        name = f"docs/ap_latency_{data}.svg"
        found = re.search("<desc>(.*?)</desc>", (README.parent / name).read_text()).group(1)
        wanted = json.dumps(zoo_page.points(zoo.cards(), peers, data))
        assert html.unescape(found) == wanted, "run `kerasdet zoo --plots docs --overwrite`"
        assert name in readme


# What int8 costs in AP: .01 at most, but here. 16 photos have some 40 people.
INT8_COSTS = {("csp_mobilenet_v2_320_people", "pennfudan"): 0.015}


def _check_precisions(made):
    """Every set is scored by the detector and by its files, and int8 loses no more than it may."""
    for data in {row["data"] for row in made.scores if "--ablation" not in row["command"]}:
        ap = {row["precision"]: row["AP"] for row in made.scores if row["data"] == data}
        assert {"keras", "float32", "float16", "int8"} <= ap.keys(), (made.name, data)
        limit = INT8_COSTS.get((made.name, data), 0.01)
        assert ap["keras"] - ap["int8"] <= limit, (made.name, data)
        assert abs(ap["keras"] - ap["float32"]) <= 0.001 and ap["keras"] - ap["float16"] <= 0.01, made.name


def test_every_preset_is_whole(monkeypatch):
    """Files there, measured in Keras and as int8, each row with its command."""
    monkeypatch.delenv(zoo.SHELVES, raising=False)
    for made in zoo.cards():
        folder = Path(zoo.__file__).parents[1] / "zoo" / made.name
        assert zoo._sha256(folder / made.weights["file"]) == made.weights["sha256"], made.name
        assert (folder / made.weights["file"]).stat().st_size == made.weights["bytes"]
        assert (folder / "labels.txt").read_text().split("\n")[:-1] == made.classes
        config = json.loads((folder / "config.json").read_text())
        assert config["config"]["image_size"] == made.image_size
        assert (folder / "recipe.py").is_file()
        _check_precisions(made)
        assert all(row["command"] for row in made.scores + made.latency), made.name
        assert made.training["curve"], made.name
