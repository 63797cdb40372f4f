"""Max-pooling at every offset, and what brings the results back into one map (OverFeat)."""

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="kerasdet")
class OffsetMaxPool(keras.layers.Layer):
    """Non-overlapping max-pooling, once for each way to lay the pools on the map.

    Pools of p x p cells can begin in any of the first p rows and columns. An ordinary max-pooling begins
    at the first and so throws away all but one in p * p places; this one keeps them all, one beside the
    other on the batch axis. What slides over the pooled maps then, such as a classifier, sees windows that
    lie p times as close together; `Interleave` puts its results in order.

    Args:
        pool: p, side of a pool in cells.

    Shapes:
        (batch, h, w, c) -> (p * p * batch, h // p, w // p, c). The first `batch` are those of the offset
        (0, 0), then (0, 1), .., rows before columns. A pool that reaches beyond the right or lower border
        holds what is left of it.

    Example: with p = 3 twenty columns are six pools: 0..17, 1..18 and 2..19; nineteen are six as well, the
    last of them 17..18 at the last offset.

    Source: OverFeat (Sermanet et al. 2013), section 3.3 and figure 3. The paper's photos have sizes at which
    no pool reaches beyond the border.
    """

    def __init__(self, pool: int, **kwargs):
        super().__init__(**kwargs)
        self.pool = pool

    def call(self, inputs):
        _, height, width, _ = ops.shape(inputs)
        p = self.pool
        rows, columns = height // p * p, width // p * p
        # The border's cells once more change no maximum of a pool that holds them.
        inputs = ops.concatenate([inputs, *[inputs[:, -1:]] * (p - 1)], axis=1)
        inputs = ops.concatenate([inputs, *[inputs[:, :, -1:]] * (p - 1)], axis=2)
        pooled = [
            ops.max_pool(inputs[:, y : y + rows, x : x + columns], p, p) for y in range(p) for x in range(p)
        ]
        return ops.concatenate(pooled, axis=0)

    def compute_output_shape(self, input_shape):
        batch, *sides, channels = input_shape
        p = self.pool
        sides = [None if side is None else side // p for side in sides]
        return None if batch is None else batch * p * p, *sides, channels

    def get_config(self):
        return {**super().get_config(), "pool": self.pool}


@keras.saving.register_keras_serializable(package="kerasdet")
class Interleave(keras.layers.Layer):
    """Maps made at every offset of an `OffsetMaxPool`, as one finer map.

    Cell (i, j) of offset (y, x) goes to (p * i + y, p * j + x).

    Args:
        pool: p of the `OffsetMaxPool`.

    Shapes:
        (p * p * batch, h, w, c) -> (batch, p * h, p * w, c).
    """

    def __init__(self, pool: int, **kwargs):
        super().__init__(**kwargs)
        self.pool = pool

    def call(self, inputs):
        _, height, width, channels = ops.shape(inputs)
        p = self.pool
        # First columns, then rows: both at once would take six dimensions, and phones' GPUs take four.
        columns = ops.transpose(ops.reshape(inputs, (p, p, -1, channels)), (0, 2, 1, 3))
        rows = ops.transpose(ops.reshape(columns, (p, -1, p * width, channels)), (1, 0, 2, 3))
        return ops.reshape(rows, (-1, p * height, p * width, channels))

    def compute_output_shape(self, input_shape):
        batch, *sides, channels = input_shape
        sides = [None if side is None else side * self.pool for side in sides]
        return None if batch is None else batch // self.pool**2, *sides, channels

    def get_config(self):
        return {**super().get_config(), "pool": self.pool}
