"""Shared by the export tests: they need Keras on TensorFlow and the LiteRT runtime."""

import os

import pytest
from needed import needed

if os.environ.get("KERAS_BACKEND", "tensorflow") != "tensorflow":
    # Export is TensorFlow's. What other backends are told is tested from TensorFlow, in a child.
    collect_ignore_glob = ["test_*.py"]


@pytest.fixture(scope="session")
def detector():
    needed("ai_edge_litert")
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


@pytest.fixture(scope="session")
def letterboxed(exported, tmp_path_factory):
    """The exported file, as that of a detector that keeps a photo's shape."""
    from kerasdet import deploy
    from kerasdet.deploy import flatbuffer, metadata

    original = exported()[0]
    about = deploy.read_metadata(original) | {"resize": "letterbox"}
    path = tmp_path_factory.mktemp("letterboxed") / "letterboxed.tflite"
    path.write_bytes(metadata.append_files(flatbuffer.write(flatbuffer.read(original.read_bytes())), about))
    return path


@pytest.fixture(scope="session")
def pictures(tmp_path_factory):
    """Photos as people have them: small, large, not square, turned by their EXIF data."""
    from discs import photo
    from PIL import Image

    folder = tmp_path_factory.mktemp("pictures")
    Image.fromarray(photo(5)[0]).save(folder / "small.png")
    Image.fromarray(photo(7, scale=17)[0][:-200, 111:]).save(folder / "large.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(photo(6, scale=5)[0][:300]).save(folder / "turned.jpg", quality=95, exif=exif)
    return sorted(folder.iterdir())
