"""The same tests on JAX, in processes of their own: Keras settles on one backend when imported."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("jax")
ROOT = Path(__file__).parents[1]
# Each a process of its own, so that they share the cores.
TESTS = (
    "test_losses.py boxes test_detector.py training/test_ema.py", "models/test_csp.py",
    "models/test_centernet.py", "models/test_ssd.py", "models/test_yolo_v1.py", "models/test_yolo_v3.py",
    "models/test_overfeat.py layers", "models/test_faster_rcnn.py models/test_trident.py",
    "models/test_fast_rcnn.py models/test_mask_rcnn.py",
)
# What says nothing about the backend, and takes long because JAX compiles every shape anew. Two detectors
# learn by heart here; of the others a step does, with and without objects: the rest is in the slow tests.
LEFT_OUT = (
    "named_backbone or mixed_precision or wrong_options or kept_by_default or goes_on_training"
    " or (overfits and not (TestDenseCSP or TestLightYOLOv3))"
    # What R-CNN and Mask R-CNN have of their own is looked at by hand there.
    " or TestRCNN or TestMaskRCNN"
    # Every size of level, photo by photo, is compiled anew.
    " or ((test_faster_rcnn or test_trident or test_fast_rcnn or test_mask_rcnn) and three_depths)"
)

# Nearly all of the time goes into compiling, and what is compiled runs a few times: a third less.
COMPILE_FAST = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"


def on_jax(*command, **variables):
    environment = {**os.environ, "KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu", **variables}
    return subprocess.run(
        [sys.executable, *command], cwd=ROOT, env=environment, capture_output=True, text=True
    )


@pytest.mark.parametrize("tests", TESTS)
def test_models_losses_and_fit(tests):
    check(tests, f"not ({LEFT_OUT})", XLA_FLAGS=COMPILE_FAST)


@pytest.mark.slow
@pytest.mark.parametrize("tests", [tests for tests in TESTS if "models/" in tests])
def test_all_learn_by_heart(tests):
    check(tests, "overfits")


def check(tests, chosen, **variables):
    folder = Path(__file__).parent
    result = on_jax(
        "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "-m", "not slow", "-k", chosen,
        *(str(folder / name) for name in tests.split()), **variables,
    )
    assert result.returncode == 0, result.stdout[-6000:] + result.stderr[-2000:]


WITHOUT_TENSORFLOW = '''
import sys


class Missing:
    """Every import of it fails, as where it is not installed."""

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "tensorflow":
            raise ModuleNotFoundError(name)


sys.meta_path.insert(0, Missing())
import numpy as np
from kerasdet.data.scenes import write_scenes
from kerasdet.models.csp import CSP
data = write_scenes(sys.argv[1], 2, size=(64, 64))
model = CSP(data.classes, backbone="mobilenet_v2_0.35", image_size=64, channels=8, parts=data.parts)
model.compile()
model.fit(data.batches(2, model, training=True), verbose=0)
print(len(model.detect(np.zeros((64, 64, 3), np.uint8), score=0.0)) > 0)
model.save(sys.argv[1] + "/model.keras")
'''


def test_training_does_not_need_tensorflow(tmp_path):
    result = on_jax("-c", WITHOUT_TENSORFLOW, str(tmp_path))
    assert result.returncode == 0, result.stderr[-4000:]
    assert result.stdout.strip().endswith("True")
