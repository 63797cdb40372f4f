"""SavedModel folders: the same three depths for TensorFlow Serving and the like."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np

from kerasdet.deploy.convert import concrete_function, input_specs

# What `save` and `metadata.write_beside` leave in a folder.
NAMES = {"assets", "fingerprint.pb", "kerasdet.json", "labels.txt", "saved_model.pb", "variables"}


def save(detector, folder: Path, outputs: str, input_dtype: str) -> list[str]:
    """Writes the detector at a depth as the signature `serving_default`, for any batch size.

    Weights are stored as constants: the folder is for inference.

    Returns:
        The names of the outputs.
    """
    import tensorflow as tf
    from tensorflow.python.framework.convert_to_constants import (
        convert_variables_to_constants_v2 as freeze,
    )

    function, names = concrete_function(detector, outputs, input_dtype, batch=None)
    frozen = freeze(function)

    @tf.function(input_signature=input_specs(detector, input_dtype, None), autograph=False)
    def serve(*inputs):
        return dict(zip(names, frozen(*inputs), strict=True))

    module = tf.Module()
    module.serve = serve
    tf.saved_model.save(module, str(folder), signatures={"serving_default": serve})
    return names


def run(folder: Path, check, names: list[str]):
    """Loads a folder and runs it on the photos of a `CheckSet`.

    Returns:
        One dict of outputs a photo, without batch axis; the shape of each output; and the median
        milliseconds of a photo.
    """
    import tensorflow as tf

    loaded = tf.saved_model.load(str(folder))
    serve = loaded.signatures["serving_default"]
    dtype = serve.structured_input_signature[1]["images"].dtype
    given = {} if check.proposals is None else {"proposals": tf.constant(check.proposals[None])}
    found, times = [], []
    for square in check.squares:
        start = time.perf_counter()
        result = serve(images=tf.constant(square[None], dtype), **given)
        times.append(time.perf_counter() - start)
        found.append({name: result[name].numpy()[0] for name in names})
    shapes = {name: tuple(serve.structured_outputs[name].shape) for name in names}
    # The first call also builds the graph.
    return found, shapes, float(np.median(times[1:] or times)) * 1000
