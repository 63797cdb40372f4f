"""The same tests on JAX, in processes of their own: Keras settles on one backend when imported."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from needed import needed

needed("jax")
ROOT = Path(__file__).parents[1]
# Each a process of its own, so that they share the cores.
MODELS = (
    "models/test_csp.py models/test_centernet.py models/test_ssd.py",
    "models/test_yolo_v1.py models/test_yolo_v3.py models/test_overfeat.py",
    "models/test_faster_rcnn.py models/test_trident.py",
    "models/test_fast_rcnn.py models/test_mask_rcnn.py",
)
TESTS = f"test_losses.py test_detector.py training/test_ema.py {MODELS[0]}", " ".join(MODELS[1:])
TRAINING = "checkpoint lr_range optimizer run schedules stages start"
# What says nothing about the backend.
LEFT_OUT = (
    "raw_outputs_export or replicas_add_up or named_backbone or mixed_precision or wrong_options or "
    "frozen_norms or average_is_kept or average_that_fit"
)
# JAX compiles every shape anew, for minutes in all. So CI looks at a step of a detector of every kind, and of
# one at the losses and at learning by heart; the rest is in the slow tests, with boxes and layers alone.
FIRST = (
    "test_losses.py or test_ema or test_detector.py or (test_csp and by_hand) or (overfits and TestDenseCSP) "
    "or (one_step and not OnAPyramid and (PaperCSP or PaperCenterNet or SSDLite or LightYOLO or TestOverFeat "
    "or TestFPN or Trident or TestFastRCNN or TestRCNN or MaskRCNN))"
)

# Nearly all of the time goes into compiling, and what is compiled runs a few times: a third less.
COMPILE_FAST = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"


def on_jax(*command, **variables):
    environment = {**os.environ, "KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu", **variables}
    return subprocess.run(
        [sys.executable, *command], cwd=ROOT, env=environment, capture_output=True, text=True
    )


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    """A folder in which the processes of a run find what others of them have compiled."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent  # each worker has one of its own in it
    return {
        "JAX_COMPILATION_CACHE_DIR": str(folder / "jax"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }


@pytest.mark.parametrize("tests", TESTS)
def test_models_losses_and_fit(tests, compiled):
    check(tests, FIRST, XLA_FLAGS=COMPILE_FAST, **compiled)


@pytest.mark.slow
@pytest.mark.parametrize(
    "tests", [*MODELS, "boxes layers",
              " ".join(["test_nan_guard.py", "test_fit.py",
                        *(f"training/test_{name}.py" for name in TRAINING.split())])],
)
def test_everything_else(tests, compiled):
    # Compiled fast, Faster R-CNN stays under what it has to learn.
    check(tests, f"not ({FIRST})" if "models" in tests else "", **compiled)


def check(tests, chosen, **variables):
    folder = Path(__file__).parent
    result = on_jax(
        "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "-m", "not slow",
        "-k", f"not ({LEFT_OUT})" + (f" and ({chosen})" if chosen else ""),
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
sys.path.insert(0, sys.argv[2])
import numpy as np
from harness import tiny_backbone
from kerasdet import backbones
from kerasdet.data.scenes import write_scenes
from kerasdet.models.csp import CSP
data = write_scenes(sys.argv[1], 2, size=(64, 64))
backbones.build("mobilenet_v1_0.25", image_size=64)
model = CSP(data.classes, backbone=tiny_backbone(), image_size=64, channels=8, parts=data.parts)
model.compile()
model.fit(data.batches(2, model, training=True), verbose=0)
print(len(model.detect(np.zeros((64, 64, 3), np.uint8), score=0.0)) > 0)
model.save(sys.argv[1] + "/model.keras")
'''


def test_training_does_not_need_tensorflow(tmp_path, compiled):
    tests = str(Path(__file__).parent)
    result = on_jax("-c", WITHOUT_TENSORFLOW, str(tmp_path), tests, XLA_FLAGS=COMPILE_FAST, **compiled)
    assert result.returncode == 0, result.stderr[-4000:]
    assert result.stdout.strip().endswith("True")
