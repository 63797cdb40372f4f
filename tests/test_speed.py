"""What `zoo/speed.py` writes of the times it took."""

import json
from pathlib import Path

import numpy as np
import pytest

from kerasdet.deploy import timing
from kerasdet.training.recipe import read

ZOO = Path(__file__).parents[1] / "zoo"
SPEED = read(ZOO / "speed.py")


def test_rows_hold_what_a_file_takes_beside_the_reference(tmp_path):
    made = {"float32": tmp_path / "a.tflite", "int8": tmp_path / "b.tflite"}
    for size, path in enumerate(made.values(), 5):
        path.write_bytes(bytes(size))
    # The machine was twice as slow in the second turn, and the third was disturbed.
    reference = np.array([0.010, 0.020, 0.010])
    times = {"float32": np.array([0.005, 0.010, 0.040]), "int8": np.array([0.002, 0.004, 0.5])}
    rows = SPEED.latency_rows(made, times, reference)
    found = [(row["precision"], row["bytes"], row["milliseconds"]) for row in rows]
    assert found == [("float32", 5, 5.0), ("int8", 6, 2.0)]
    assert all(row["machine"] == timing.processor() and row["threads"] == 2 for row in rows)


def test_the_peers_table_is_brought_to_this_machine_and_else_left_alone():
    before = (ZOO / "peers.json").read_text()
    # 15.2 ms by median, where the table has 7.6.
    after = SPEED.with_scale(before, np.array([0.0152, 0.01, 0.3]))
    old, new = json.loads(before), json.loads(after)
    assert new["scale"] == 2.0 and new["machine"] == timing.processor()
    assert "15.2 ms" in new["scaled_by"] and "3 rounds" in new["scaled_by"]
    assert {**new, **{key: old[key] for key in ("scale", "machine", "scaled_by")}} == old
    assert len(after.splitlines()) == len(before.splitlines())
    with pytest.raises(ValueError, match="machine has to stand in a line of its own"):
        SPEED.with_scale(json.dumps(old), np.array([0.01]))
