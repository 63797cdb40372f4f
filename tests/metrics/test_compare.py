"""Two evaluations beside each other."""

import dataclasses
import math

import numpy as np
import pytest

from kerasdet.data import Dataset, Sample
from kerasdet.metrics.compare import compare, read_scores, write_scores

BEFORE = {"AP": 0.4, "AP50": 0.6, "AP/cat": 0.5, "AP/dog": 0.3, "AP/cow": math.nan, "AP50/cat": 0.9}
AFTER = {"AP": 1 / 3, "AP50": 0.6, "AP/cat": 0.45, "AP/dog": 0.45, "AP/cow": math.nan, "AP/owl": 0.1}


def photos(count, first=0):
    samples = [Sample(f"/data/{i}.jpg", np.zeros((0, 4)), np.zeros(0)) for i in range(first, first + count)]
    return Dataset(samples, ("cat",), name="zoo")


@pytest.fixture
def runs(tmp_path):
    """A run's folder, and a file of its own."""
    (tmp_path / "a").mkdir()
    write_scores(tmp_path / "a" / "scores.json", BEFORE, photos(9), epoch=3)
    write_scores(tmp_path / "b.json", AFTER, photos(9))
    return tmp_path / "a", tmp_path / "b.json"


def test_scores_are_read_as_they_were_written(runs):
    found = read_scores(runs[0])
    assert (found["data"], found["photos"], found["epoch"]) == ("zoo", 9, 3)
    assert str(found["scores"]) == str(BEFORE)
    assert "NaN" not in (runs[0] / "scores.json").read_text(), "json has none"


def test_the_class_that_gained_most_comes_first(runs):
    found = compare(*runs)
    assert found.rows == [("dog", 0.3, 0.45), ("cat", 0.5, 0.45)]
    # The second one's AP is over a class more, and so no figure to set beside the first one's.
    assert found.all == (0.4, 0.45) and found.left_out == ["owl"] and AFTER["AP"] != 0.45


def test_the_picture_has_two_bars_a_class(runs):
    (panel,) = compare(*runs).draw().axes
    assert [bar.get_width() for bar in panel.patches] == [0.3, 0.5, 0.45, 0.45]
    assert panel.get_title() == "0.400 to 0.450 over all classes that both know"
    assert [text.get_text() for text in panel.get_yticklabels()] == ["dog", "cat"]
    assert [text.get_text() for text in panel.texts] == ["+0.150", "-0.050"]
    # Read from above, each pair in the order of the runs.
    assert panel.yaxis_inverted() and panel.patches[0].get_y() < panel.patches[2].get_y()


def test_what_cannot_be_compared_is_told(runs, tmp_path):
    write_scores(tmp_path / "c.json", AFTER, photos(8))
    with pytest.raises(ValueError, match=r"scored on 'zoo' \(9 photos\) and .*c.json on 'zoo' \(8 photos\)"):
        compare(runs[0], tmp_path / "c.json")
    write_scores(tmp_path / "d.json", {"AP": 0.5, "AP/owl": 0.5}, photos(9))
    with pytest.raises(ValueError, match="no class in common"):
        compare(runs[0], tmp_path / "d.json")
    with pytest.raises(FileNotFoundError, match="gone: there is no such evaluation"):
        compare(runs[0], tmp_path / "gone")
    for text in ("[1]", '{"data": "zoo", "photos": 9, "scores": {"AP/cat": 0.5}}'):
        (tmp_path / "e.json").write_text(text)
        with pytest.raises(ValueError, match="e.json: holds no evaluation"):
            compare(runs[0], tmp_path / "e.json")


def test_as_many_photos_of_one_set_need_not_be_the_same_ones(runs, tmp_path):
    """As where two runs draw their validation photos by different seeds."""
    write_scores(tmp_path / "c.json", AFTER, photos(9, first=3))
    with pytest.raises(ValueError, match=r"were scored on other photos of 'zoo', 9 each; .*the same --seed"):
        compare(runs[0], tmp_path / "c.json")
    # In another order, or read from another place, they are the same.
    moved = [dataclasses.replace(sample, path=f"../{sample.path[6:]}") for sample in photos(9)][::-1]
    write_scores(tmp_path / "c.json", AFTER, Dataset(moved, ("cat",), name="zoo"))
    assert compare(runs[0], tmp_path / "c.json").rows == compare(*runs).rows
