"""`import kerasdet` is light, and every public name is there."""

import importlib
import os
import pathlib
import subprocess
import sys

import pytest

import kerasdet

HEAVY = ("keras", "tensorflow", "jax", "torch", "cv2", "grain", "pycocotools", "matplotlib")


def loaded_after(code: str) -> set[str]:
    """Those of HEAVY that a fresh Python has imported after running `code`."""
    code += f"\nimport sys; print('LOADED', *[n for n in {HEAVY!r} if n in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(run.stdout.rpartition("LOADED")[2].split())


@pytest.mark.parametrize(
    "code",
    [
        "import kerasdet",
        "import kerasdet; kerasdet.zoo.names(); kerasdet.zoo.cards(); kerasdet.load",
        "import kerasdet; kerasdet.data, kerasdet.metrics, kerasdet.deploy, kerasdet.training",
        "import kerasdet.cli",
    ],
)
def test_nothing_heavy_comes_along(code):
    assert loaded_after(code) == set()


def test_the_check_sees_what_is_imported():
    assert "cv2" in loaded_after("import cv2")


def test_every_public_name_is_there():
    for name in kerasdet.__all__:
        assert getattr(kerasdet, name) is not None
    for module in ("data", "deploy", "metrics", "training"):
        module = importlib.import_module(f"kerasdet.{module}")
        for name in module.__all__:
            assert getattr(module, name) is not None
    assert set(kerasdet.__all__) <= set(dir(kerasdet))


@pytest.mark.parametrize("package", ["data", "deploy", "metrics", "training"])
def test_no_module_takes_the_place_of_a_public_name(package):
    """An import of a module puts it into its package, in front of the package's `__getattr__`."""
    package = importlib.import_module(f"kerasdet.{package}")
    files = {file.stem for file in pathlib.Path(package.__file__).parent.iterdir()}
    assert not files & set(package.__all__)


def test_load_is_of_files_and_zoo_load_of_names():
    assert kerasdet.load is kerasdet.zoo.load_file
    assert kerasdet.zoo.load is not kerasdet.load


def test_an_unknown_name():
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = kerasdet.nothing


def test_tensorflow_keeps_memory_in_a_pool():
    tf = pytest.importorskip("tensorflow")
    if os.environ["TF_CPU_ALLOCATOR_USE_BFC"] != "true":
        pytest.skip("TF_CPU_ALLOCATOR_USE_BFC is set to something else")
    with tf.device("CPU:0"):
        tf.zeros((8, 8)) + 1
    # Without a pool, TensorFlow keeps no account of a CPU's memory and raises ValueError.
    assert tf.config.experimental.get_memory_info("CPU:0")["peak"] > 0


def test_what_the_user_says_of_memory_stays():
    code = "import os, kerasdet; print(os.environ['TF_CPU_ALLOCATOR_USE_BFC'])"
    run = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | {"TF_CPU_ALLOCATOR_USE_BFC": "false"},
        capture_output=True, text=True, check=True,
    )
    assert run.stdout.split() == ["false"]
