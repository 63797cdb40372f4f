"""The results file: whole at any time, and what a kill leaves of it."""

import json

import pytest

from kerasdet.results import ResultsFile

SETTINGS = {"model": "m", "score": 0.3}


def row(image_id):
    return {"image_id": image_id, "bbox": [0.0, 1.0, 2.0, 3.0], "score": 0.5}


def test_it_is_whole_json_at_any_time(tmp_path):
    path = tmp_path / "new" / "a.json"
    with ResultsFile(path, SETTINGS) as results:
        assert json.loads(path.read_text()) == []
        results.add([row(1), row(1)], 2)
        assert json.loads(path.read_text()) == [row(1), row(1)]
        results.add([], 2, unreadable=1)
        results.add([row(5)], 1)
        assert json.loads(path.read_text()) == [row(1), row(1), row(5)]
    assert (results.done, results.objects, results.unreadable) == (5, 3, 1)
    assert path.read_text().count("\n") == 5  # a row a line, between two brackets


def test_it_goes_on_where_it_was_killed(tmp_path):
    killed, whole = tmp_path / "a.json", tmp_path / "b.json"
    with ResultsFile(killed, SETTINGS) as results:
        results.add([row(1)], 8, unreadable=2)
    # In the middle of the next batch: rows lie over the bracket, and the last one is not all there.
    left = killed.read_bytes()
    killed.write_bytes(left[:-3] + b",\n" + json.dumps(row(9)).encode() * 3 + b",\n{\"image")
    with ResultsFile(killed, SETTINGS, resume=True) as results:
        assert (results.done, results.objects, results.unreadable) == (8, 1, 2)
        assert killed.read_bytes() == left
        results.add([row(10)], 8)
    with ResultsFile(whole, SETTINGS, resume=True) as results:  # nothing there yet
        results.add([row(1)], 8, unreadable=2)
        results.add([row(10)], 8)
    assert killed.read_bytes() == whole.read_bytes()
    assert killed.with_suffix(".progress").read_text() == whole.with_suffix(".progress").read_text()


def test_nothing_is_replaced_unasked(tmp_path):
    path = tmp_path / "a.json"
    with ResultsFile(path, SETTINGS) as results:
        results.add([row(1)], 1)
    before = path.read_bytes()
    with pytest.raises(FileExistsError, match=r"a\.json exists; --resume goes on"):
        ResultsFile(path, SETTINGS)
    with pytest.raises(ValueError, match=r"begun with score 0\.3, now it is 0\.5"):
        ResultsFile(path, SETTINGS | {"score": 0.5}, resume=True)
    assert path.read_bytes() == before
    with ResultsFile(path, SETTINGS, overwrite=True) as results:
        assert results.done == 0 and json.loads(path.read_text()) == []


def test_a_file_that_is_not_ours_or_was_cut_is_told(tmp_path):
    path = tmp_path / "a.json"
    path.write_text("[]")
    with pytest.raises(FileExistsError, match=r"has no a\.progress beside it"):
        ResultsFile(path, SETTINGS, resume=True)
    with ResultsFile(path, SETTINGS, overwrite=True) as results:
        results.add([row(1)], 1)
    path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(ValueError, match="has 20 bytes, and a.progress knows of .* begin anew"):
        ResultsFile(path, SETTINGS, resume=True)


@pytest.mark.parametrize("text", ["", "{}", "[1]"])
def test_progress_that_is_none_is_named(tmp_path, text):
    """As a full disk leaves it."""
    (tmp_path / "a.progress").write_text(text)
    with pytest.raises(ValueError, match=r"a\.progress: damaged .*; begin anew with --overwrite"):
        ResultsFile(tmp_path / "a.json", SETTINGS, resume=True)


def test_two_runs_do_not_write_one_file(tmp_path):
    path = tmp_path / "a.json"
    with ResultsFile(path, SETTINGS) as results:
        results.add([row(1)], 1)
        for option in ("resume", "overwrite"):
            with pytest.raises(ValueError, match=r"a\.json: another run is writing it"):
                ResultsFile(path, SETTINGS, **{option: True}).__enter__()
        results.add([row(2)], 1)
    assert json.loads(path.read_text()) == [row(1), row(2)]
    with ResultsFile(path, SETTINGS, resume=True) as results:
        assert results.done == 2
