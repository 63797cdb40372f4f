"""What a `.tflite` looks like after it was taken apart and put together again."""

import pytest

from kerasdet.deploy import flatbuffer


@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_every_buffer_starts_at_a_multiple_of_16_bytes(exported, precision):
    from ai_edge_litert import schema_py_generated as schema

    path, _ = exported(precision)
    model = schema.Model.GetRootAsModel(path.read_bytes(), 0)
    starts = []
    for i in range(model.BuffersLength()):
        table = model.Buffers(i)._tab
        field = table.Offset(4)
        if field and model.Buffers(i).DataLength():
            starts.append(table.Vector(field))
    assert len(starts) > 20
    assert [start % 16 for start in starts] == [0] * len(starts)


def test_weights_survive_being_read_and_written(exported):
    path, _ = exported("float32")
    before = flatbuffer.read(path.read_bytes())
    after = flatbuffer.read(flatbuffer.write(flatbuffer.read(path.read_bytes())))
    assert len(before.buffers) == len(after.buffers)
    for one, other in zip(before.buffers, after.buffers, strict=True):
        assert (one.data is None) == (other.data is None)
        assert one.data is None or one.data.tobytes() == other.data.tobytes()
