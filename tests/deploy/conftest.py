"""Shared by the export tests: they need Keras on TensorFlow and the LiteRT runtime."""

import os

import pytest

if os.environ.get("KERAS_BACKEND", "tensorflow") != "tensorflow":
    # Export is TensorFlow's. What other backends are told is tested from TensorFlow, in a child.
    collect_ignore_glob = ["test_*.py"]


@pytest.fixture(scope="session")
def detector():
    pytest.importorskip("ai_edge_litert", reason="ai-edge-litert (kerasdet[export]) is missing")
    from discs import DiscDetector

    return DiscDetector()


@pytest.fixture(scope="session")
def disc_set(tmp_path_factory):
    """24 labelled photos of discs."""
    from discs import dataset

    return dataset(tmp_path_factory.mktemp("discs"), 24)


@pytest.fixture(scope="session")
def exported(detector, disc_set, tmp_path_factory):
    """Exports once what several tests look at: (precision, outputs) -> (path, report)."""
    from kerasdet import deploy

    folder, made = tmp_path_factory.mktemp("exported"), {}

    def export(precision="float32", outputs="detections"):
        key = precision, outputs
        if key not in made:
            path = folder / f"{precision}_{outputs}.tflite"
            photos = {"calibration": disc_set} if precision == "int8" else {}
            made[key] = path, deploy.export(
                detector, path, precision=precision, outputs=outputs, **photos
            )
        return made[key]

    return export
