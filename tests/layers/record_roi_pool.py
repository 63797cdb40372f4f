"""Records what ONNX Runtime's MaxRoiPool, which is Fast R-CNN's RoI pooling, finds.

    python record_roi_pool.py > roi_pool_onnx.json

Needs onnx and onnxruntime, which nothing else here does.
"""

import json

import numpy as np
import onnxruntime
from onnx import TensorProto, helper

STRIDE, SIZES = 8, (7, 3, 2)
# Of a map of 12 x 16 cells: all of it, parts that end at its border, one that only rounding leads to a cell,
# thin ones, one within and a point.
BOXES = [
    [0, 0, 128, 96], [20, 10, 128, 96], [100, 60, 127, 95], [120, 88, 128, 96], [124, 92, 128, 96],
    [40, 20, 44, 90], [3.9, 4.1, 60.2, 50], [8, 8, 24, 24], [30, 30, 30, 30],
]


def pooled(features, size: int):
    """(n, size, size) of BOXES."""
    node = helper.make_node(
        "MaxRoiPool", ["features", "boxes"], ["found"], pooled_shape=[size, size], spatial_scale=1 / STRIDE
    )
    shapes = {"features": features.shape, "boxes": (len(BOXES), 5), "found": None}
    features_info, boxes_info, found_info = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()
    )
    graph = helper.make_graph([node], "pool", [features_info, boxes_info], [found_info])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    photos = np.zeros((len(BOXES), 1), np.float32)
    boxes = np.concatenate([photos, np.array(BOXES, np.float32)], axis=1)
    return session.run(None, {"features": features, "boxes": boxes})[0][:, 0]


def main():
    features = np.random.default_rng(5).normal(size=(1, 1, 12, 16)).round(2).astype(np.float32)
    found = {str(size): pooled(features, size).astype(float).round(2).tolist() for size in SIZES}
    kept = {"onnxruntime": onnxruntime.__version__, "stride": STRIDE, "boxes": BOXES}
    print(json.dumps(kept | {"features": features[0, 0].astype(float).round(2).tolist(), "found": found}))


main()
