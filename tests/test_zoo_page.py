"""The page of the shelf: what it shows, and that it is whole in itself."""

import copy
import dataclasses
import json
import re
from pathlib import Path

import pytest
from PIL import Image
from test_card import VALUES

from kerasdet import zoo_page
from kerasdet.card import Card

ZOO = Path(__file__).parents[1] / "zoo"
PEERS = {
    "scale": 2.0, "about": "From a table.",
    "sets": {"street": {"title": "Streets", "classes": ["person"]}},
    "peers": [
        {"name": "Other", "milliseconds": 4.0, "scores": {"street": {"AP": 0.3, "AP50": 0.6}}},
        {"name": "Elsewhere", "milliseconds": 5.0, "scores": {}},
    ],
}


@pytest.fixture
def preset(tmp_path):
    """A card whose words try to be HTML, and a folder with a picture."""
    values = copy.deepcopy(VALUES)
    values |= {"summary": "<script>alert(1)</script>", "deviations": ['A "new" & <b>bold</b> head.']}
    for row, score in zip(values["scores"], (0.75, 0.74), strict=True):
        row |= {"data": "street", "AP50": score}
    values["latency"].append(dict(values["latency"][0], precision="float32", milliseconds=6.5))
    Image.new("RGB", (8, 6), (200, 30, 30)).save(tmp_path / "found.jpg")
    return Card.from_dict(values), tmp_path


def test_points_are_of_the_files_measured_on_the_set(preset):
    card, _ = preset
    # Of float32 there is a time but no score, of "keras" a score but no time.
    assert zoo_page.points([card], PEERS, "street") == {"tiny_64_people": [(3.21, 0.74)]}
    others = copy.deepcopy(PEERS)
    others["sets"]["street"]["classes"] = ["person", "cat"]
    assert zoo_page.points([card], others, "street") == {}
    for machine, drawn in (("a CPU", {"tiny_64_people": [(3.21, 0.74)]}), ("another CPU", {})):
        assert zoo_page.points([card], PEERS | {"machine": machine}, "street") == drawn


def test_the_page_shows_all_and_needs_nothing_else(preset):
    text = zoo_page.page([preset], PEERS)
    for part in (
        "tiny_64_people", "0.750", "1.2 MB", "3.2 ms", "a CPU, 2 threads", "CC BY 4.0", "Apache-2.0",
        "Streets", ">Other<", "times 2.00", "data:image/jpeg;base64,", "prefers-color-scheme: dark",
    ):
        assert part in text, part
    assert ">Elsewhere<" not in text
    assert not re.search(r'(src|href)="(?!data:|#)|url\((?!#)|@import', text)
    assert "<script" not in text and "<b>" not in text
    assert "A &quot;new&quot; &amp; &lt;b&gt;bold&lt;/b&gt; head." in text
    assert "<svg" not in zoo_page.page([preset], None)


def test_a_set_that_nobody_is_scored_on_is_not_drawn(preset):
    peers = copy.deepcopy(PEERS)
    peers["sets"]["moon"] = {"title": "The moon", "classes": ["crater"]}
    assert "The moon" not in zoo_page.page([preset], peers)
    assert list(zoo_page.drawings([preset[0]], peers)) == ["street"]


def test_the_times_of_peers_are_scaled(preset):
    plain = copy.deepcopy(PEERS) | {"scale": 1.0}
    at = {}
    for name, peers in (("twice", PEERS), ("once", plain)):
        svg = zoo_page.draw_panel("street", [], peers)
        # The longest time is always at the same place; the ticks tell which it is.
        at[name] = [float(t) for t in re.findall(r">([\d.]+)</text>", svg)]
    assert max(at["twice"]) == 8 and max(at["once"]) == 4


def test_times_far_apart_are_drawn_by_powers(preset):
    card, far = preset[0], copy.deepcopy(PEERS)
    far["peers"][0]["milliseconds"] = 100.0
    ticks = re.findall(r">([\d.]+)</text>", zoo_page.draw_panel("street", [card], far))
    # From 3.2 ms to 200 ms, twice those of the table.
    assert {"5", "10", "20", "50", "100", "200"} <= set(ticks) and "150" not in ticks


def test_the_plot_names_presets_by_their_short_names(preset):
    (card, _), short = preset, preset[0].aliases[0]
    assert f">{short}</text>" in zoo_page.draw_panel("street", [card], PEERS)
    nameless = dataclasses.replace(card, aliases=[])
    assert f">{card.name}</text>" in zoo_page.draw_panel("street", [nameless], PEERS)


def test_the_page_is_the_same_each_time(preset):
    assert zoo_page.page([preset], PEERS) == zoo_page.page([preset], PEERS)


def test_a_broken_table_of_peers_is_named(tmp_path):
    assert zoo_page.read_peers([tmp_path]) is None
    for text in ("{", "[]", json.dumps(PEERS | {"scale": "x"}), json.dumps(PEERS | {"sets": {"a": {}}})):
        (tmp_path / "peers.json").write_text(text)
        with pytest.raises(ValueError, match=r"peers\.json: not a table of peers"):
            zoo_page.read_peers([tmp_path])


def test_the_peers_of_this_repository():
    peers = zoo_page.read_peers([ZOO])
    assert len(peers["peers"]) == 6
    for peer in peers["peers"]:
        assert {"source", "licence"} <= peer.keys() and set(peer["scores"]) == set(peers["sets"])
        for row in peer["scores"].values():
            assert 0 < row["AP"] < row["AP50"] < 1
