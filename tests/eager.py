"""Training without a graph: what conftest's `untraced` does, for fixtures of modules too."""

import contextlib


@contextlib.contextmanager
def eagerly():
    """Training steps run op by op: tracing them would take most of these tests' time."""
    import keras

    if keras.backend.backend() != "tensorflow":
        yield
        return
    import tensorflow as tf

    tf.config.run_functions_eagerly(True)
    try:
        yield
    finally:
        tf.config.run_functions_eagerly(False)
