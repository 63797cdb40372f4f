"""From `detector.forward` to the bytes of a `.tflite`: builtin operators only, batch of one."""

from __future__ import annotations

import contextlib
import logging

from kerasdet.deploy import flatbuffer


class ConversionError(RuntimeError):
    """A part of the detector cannot be said in LiteRT's builtin operators."""


@contextlib.contextmanager
def in_full_precision(detector):
    """Lets a detector that was built for training in 16 bits compute in float32: LiteRT's operators do.

    Its weights are float32 anyway.
    """
    layers = detector._flatten_layers() if hasattr(detector, "_flatten_layers") else ()
    kept = [(layer, layer.dtype_policy) for layer in layers if layer.compute_dtype != "float32"]
    for layer, _ in kept:
        layer.dtype_policy = "float32"
    try:
        yield
    finally:
        for layer, policy in kept:
            layer.dtype_policy = policy


def concrete_function(detector, outputs: str, input_dtype: str = "uint8", batch: int | None = 1):
    """Traces the detector at a depth.

    Args:
        detector: has `forward(images, outputs) -> dict` and `image_size`; one that is given proposals takes
            them as a third argument, and as a second input here.
        outputs: "raw", "boxes" or "detections".
        input_dtype: "uint8" or "float32"; values are 0..255 in either.
        batch: photos at a time, None for any number.

    Returns:
        The concrete function, whose outputs are a list of float32 tensors, and the list of their
        names, in the order in which `forward` gives them.
    """
    import tensorflow as tf

    names = []

    @tf.function(autograph=False)
    def run(*inputs):
        result = dict(detector.forward(inputs[0], outputs, *inputs[1:]))
        if batch is not None:
            # A `.tflite`: MediaPipe's four outputs leave no place for outlines.
            result.pop("masks", None)
        names[:] = result
        return [tf.cast(value, tf.float32) for value in result.values()]

    return run.get_concrete_function(*input_specs(detector, input_dtype, batch)), names


def input_specs(detector, input_dtype: str, batch: int | None) -> list:
    """What `forward` takes, as TensorFlow's specs: images and, where they are given, proposals."""
    import tensorflow as tf

    size, given = detector.image_size, given_proposals(detector)
    specs = [tf.TensorSpec((batch, size, size, 3), input_dtype, name="images")]
    if given:
        specs.append(tf.TensorSpec((batch, given, 4), tf.float32, name="proposals"))
    return specs


def given_proposals(detector) -> int:
    """How many boxes each photo has to come with; see `Detector`."""
    return getattr(detector, "given_proposals", 0)


def convert(detector, outputs: str, input_dtype: str = "uint8", half: bool = False):
    """Converts a detector.

    Args:
        detector, outputs, input_dtype: as for `concrete_function`.
        half: store weights in float16; computation stays float32 where the device wants it.

    Returns:
        The bytes of the `.tflite`, outputs named and in the order of `forward`, and their names.

    Raises:
        ConversionError: an operator has no builtin; names it and where it stands.
    """
    import tensorflow as tf

    function, names = concrete_function(detector, outputs, input_dtype)
    with _quiet():
        converter = tf.lite.TFLiteConverter.from_concrete_functions([function])
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
        if half:
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
            converter.target_spec.supported_types = [tf.float16]
        try:
            data = converter.convert()
        except Exception as error:
            raise ConversionError(_explain(error, outputs)) from error
    model = flatbuffer.read(data)
    flatbuffer.order_and_name_outputs(model, [t.op.name for t in function.outputs], names)
    return flatbuffer.write(model), names


def _explain(error: Exception, outputs: str) -> str:
    """Says which operators stopped the conversion and in which layers they stand."""
    places = []
    for detail in getattr(error, "errors", []):
        name = detail.operator.name
        where = next((call.name for call in detail.location.call if call.name), "")
        place = f"{name} in '{where}'" if where else name
        if name and place not in places:
            places.append(place)
    if not places:
        return f"the LiteRT converter failed: {str(error).strip()[:500]}"
    text = (
        f"no LiteRT builtin operator for {'; '.join(places)}. A phone runs builtin operators only: "
        "build that layer from others (convolution, pooling, resize, elementwise, gather, top-k)"
    )
    if outputs != "raw":
        text += ", or, if it belongs to decoding, export outputs='raw' and decode in the app"
    return text


@contextlib.contextmanager
def _quiet():
    """Hides TensorFlow's advice to convert through a SavedModel, which shuffles the outputs."""
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
