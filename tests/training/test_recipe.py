"""What recipes share, on drawn scenes; and that the shelf's recipes hold what they have to."""

import csv
import functools
import json
from pathlib import Path

import keras
import numpy as np
import pytest
from harness import tiny_backbone

import kerasdet
from kerasdet.card import Card, in_words
from kerasdet.data.scenes import write_scenes
from kerasdet.metrics.compare import read_scores
from kerasdet.models.csp import CSP
from kerasdet.training import Stage, recipe, voc12
from kerasdet.training.optimizer import adamw

pytestmark = pytest.mark.usefixtures("untraced")
SHELF = Path(__file__).parents[2] / "zoo"
RECIPES = sorted(path.parent.name for path in SHELF.glob("*/recipe.py"))
DOC = """Trains nothing much.

    python recipe.py --data DATA
"""


def sets(folder):
    scenes = kerasdet.data.load(folder)
    return scenes.subset(range(8)), {"drawn": scenes.subset([8, 9]), "more": scenes.subset([10, 11])}


@pytest.fixture
def data(tmp_path):
    write_scenes(tmp_path / "scenes", 12, size=(64, 64), seed=0)
    return tmp_path / "scenes"


def builder(given):
    def build(size, weights):
        given.append((size, weights))
        return CSP(
            ("person",), backbone=tiny_backbone(size), image_size=size, stride=8, channels=8,
            target="dense",
        )

    return build


def arguments(data, out, *more):
    return ["--data", str(data), "--backbone", "start.h5", "--out", str(out), "--steps", "1", *more]


def test_a_run_leaves_what_publishing_needs(data, tmp_path, capsys):
    given = []
    stages = Stage(64, 2, 4), Stage(96, 1, 4)
    model = recipe.run(
        DOC, sets, builder(given), stages, rate=1e-3, every=2, argv=arguments(data, tmp_path / "run")
    )
    assert given == [(64, "start.h5"), (96, None)], "starting weights are the first detector's only"
    loaded = kerasdet.load(tmp_path / "run" / "model.keras")
    for one, other in zip(model.weights, loaded.weights, strict=True):
        np.testing.assert_array_equal(*map(keras.ops.convert_to_numpy, (one, other)))
    with (tmp_path / "run" / "log.csv").open() as log:
        rows = list(csv.DictReader(log))
    assert [row["epoch"] for row in rows] == ["0", "1", "2"]
    assert {"loss", "val_AP", "val_AP50"} <= set(rows[0])
    lines = capsys.readouterr().out.splitlines()
    told = [line.split(" ")[1] for line in lines if line.startswith("epoch ")]
    assert told == ["1/2:", "2/2:", "3/3:"]
    assert [line.split()[0] for line in lines if "AP50" in line][-2:] == ["drawn", "more"]
    folder = {path.name for path in (tmp_path / "run").iterdir()}
    assert {"best.keras", "last.keras", "curves.png"} <= folder
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["settings"]["stages"][1] == {
        "image_size": 96, "epochs": 1, "batch_size": 4, "phase": None
    }
    assert config["versions"]["keras"] == keras.__version__
    curve = recipe.read(SHELF / "publish.py").curve(tmp_path / "run" / "log.csv")
    assert curve[0]["epoch"] == 1 and set(curve[0]) == {"epoch", "loss", "AP", "AP50"}


def test_rates_and_schedule_reach_the_optimizer(data, tmp_path, monkeypatch):
    asked = []

    def watched(rate, detector, backbone_rate):
        asked.append((rate, backbone_rate))
        return adamw(rate, detector, backbone_rate)

    monkeypatch.setattr("kerasdet.training.stages.adamw", watched)
    recipe.run(
        DOC, sets, builder([]), (Stage(64, 1, 4),), rate=1e-2, backbone_rate=1e-4, schedule="constant",
        every=9, argv=arguments(data, tmp_path / "run"),
    )
    ((rate, slow),) = asked
    # Long after the end, where a cosine would have fallen to 1 %.
    assert [float(rate(9)), float(slow(9))] == pytest.approx([1e-2, 1e-4])


def test_a_run_that_goes_on_keeps_the_best_epoch_of_before(data, tmp_path, monkeypatch):
    """Interrupted while its second epoch is measured; that epoch is then worse than the first."""
    figures = iter([0.5, None, 0.1, 0.1, 0.1])

    def measured(*_, **__):
        if (figure := next(figures)) is None:
            raise KeyboardInterrupt
        return {"AP": figure}

    def run():
        argv = arguments(data, tmp_path / "run")
        recipe.run(DOC, sets, builder([]), (Stage(64, 2, 4),), rate=1e-3, argv=argv)

    monkeypatch.setattr(CSP, "evaluate_detections", measured)
    with pytest.raises(KeyboardInterrupt):
        run()
    best = (tmp_path / "run" / "best.keras").read_bytes()
    run()
    assert (tmp_path / "run" / "best.keras").read_bytes() == best
    assert read_scores(tmp_path / "run")["epoch"] == 1


def test_a_run_own_start_asks_for_no_weights(data, tmp_path):
    given = []
    argv = ["--data", str(data), "--out", str(tmp_path / "run"), "--steps", "1"]
    recipe.run(
        DOC, sets, builder(given), (Stage(64, 1, 4),), rate=1e-3, every=9, argv=argv, own_start=True
    )
    assert given == [(64, None)]
    with pytest.raises(ValueError, match="--backbone is a.h5, and this recipe finds its own"):
        recipe.run(
            DOC, sets, builder(given), (Stage(64, 1, 4),), rate=1e-3, argv=[*argv, "--backbone", "a.h5"],
            own_start=True,
        )


def test_without_a_file_keras_own_weights_are_taken(data, tmp_path):
    given = []
    argv = ["--data", str(data), "--out", str(tmp_path / "run"), "--steps", "1"]
    recipe.run(DOC, sets, builder(given), (Stage(64, 1, 4),), rate=1e-3, every=9, argv=argv)
    assert given == [(64, "imagenet")]


def test_a_folder_with_other_things_is_left_as_it_is(data, tmp_path):
    out = tmp_path / "run"
    out.mkdir()
    (out / "ablation.json").write_text("{}")  # that a recipe with one has left
    (out / "log.csv").write_text("epoch,loss\n0,1.0\n")
    stages, arms = (Stage(64, 1, 4),), {"one": builder([])}
    with pytest.raises(FileExistsError, match="run: is not empty"):
        recipe.run(
            DOC, sets, builder([]), stages, rate=1e-3, ablation=(stages, arms), argv=arguments(data, out)
        )
    assert sorted(path.name for path in out.iterdir()) == ["ablation.json", "log.csv"]
    assert (out / "log.csv").read_text().count("\n") == 2
    (out / "log.csv").unlink()
    recipe.run(
        DOC, sets, builder([]), stages, rate=1e-3, every=9, ablation=(stages, arms),
        argv=arguments(data, out),
    )
    assert (out / "model.keras").is_file() and (out / "ablation.json").is_file()


def test_an_ablation_trains_every_arm_from_the_same_seed(data, tmp_path):
    arms = {"one": builder([]), "same again": builder([])}
    found = recipe.run(
        DOC, sets, builder([]), (Stage(64, 9, 4),), rate=1e-3, ablation=((Stage(64, 1, 4),), arms),
        argv=arguments(data, tmp_path / "run", "--ablation"),
    )
    assert found is None and not (tmp_path / "run" / "model.keras").exists()
    scores = json.loads((tmp_path / "run" / "ablation.json").read_text())
    assert list(scores) == list(arms)
    assert scores["one"] == pytest.approx(scores["same again"], nan_ok=True)
    logs = [(tmp_path / "run" / arm / "log.csv").read_text() for arm in ("one", "same_again")]
    assert logs[0].count("\n") == 2, "the short stages are trained"
    for arm in ("one", "same_again"):
        assert (tmp_path / "run" / arm / "model.keras").is_file(), "to compare detections with"
    first = [dict(csv.DictReader(log.splitlines()).__next__()) for log in logs]
    assert float(first[0]["loss"]) == pytest.approx(float(first[1]["loss"]), rel=1e-4)


def test_a_tried_out_ablation_is_not_taken_for_the_ablation(data, tmp_path):
    given = {"rate": 1e-3, "ablation": ((Stage(64, 1, 4),), {"one": builder([])})}
    argv = ["--data", str(data), "--out", str(tmp_path / "run"), "--ablation"]
    recipe.run(DOC, sets, builder([]), (Stage(64, 9, 4),), **given, argv=[*argv, "--steps", "1"])
    with pytest.raises(ValueError, match=r"one.config\.json: the run began with steps 1, now it is None"):
        recipe.run(DOC, sets, builder([]), (Stage(64, 9, 4),), **given, argv=argv)


def test_batches_take_the_recipe_s_own_arguments(data, tmp_path):
    with pytest.raises(TypeError, match="no_such_argument"):
        recipe.run(
            DOC, sets, builder([]), (Stage(64, 1, 4),), rate=1e-3, batches={"no_such_argument": 1},
            argv=arguments(data, tmp_path / "run"),
        )


def test_voc12_keeps_six_classes_and_forgets_the_others(tmp_path):
    names = [*voc12.CLASSES[::-1], "sofa"]
    (tmp_path / "voc12" / "images").mkdir(parents=True)
    from PIL import Image

    Image.new("RGB", (60, 40)).save(tmp_path / "voc12" / "images" / "a.jpg")
    # A sofa, a person and a cat; a category's id is its place in `names`.
    boxes = [{"category_id": names.index(name), "bbox": [i, 0, 20, 20]}
             for i, name in enumerate(("sofa", "person", "cat"))]
    for split in ("train", "val"):
        (tmp_path / "voc12" / f"instances_{split}.json").write_text(json.dumps({
            "images": [{"id": 1, "file_name": "a.jpg", "width": 60, "height": 40}],
            "categories": [{"id": i, "name": name} for i, name in enumerate(names)],
            "annotations": [
                {"id": i, "image_id": 1, "iscrowd": 0, "area": 400} | box for i, box in enumerate(boxes)
            ],
        }))
    train, held_back = voc12.sets(tmp_path)
    for found in (train, held_back["voc12"]):
        assert found.classes == voc12.CLASSES
        assert [found.classes[label] for label in found[0].labels] == ["person", "cat"]
        np.testing.assert_array_equal(found[0].boxes[:, 0], [1, 2])
        assert not len(found[0].ignore)


@pytest.mark.parametrize("preset", RECIPES)
def test_recipes_of_the_shelf(preset):
    made = recipe.read(SHELF / preset / "recipe.py")
    command = " ".join(made.__doc__.split("\n\n")[1].split())
    assert command.startswith(f"python zoo/{preset}/recipe.py --data DATA ")
    # Who starts from random weights or from a preset asks for no file.
    asks_for_none = made.CARD["training"]["starting_weights"]["source"].startswith(("random", "this shelf"))
    assert (" --backbone " in command) != asks_for_none
    last = " ".join(made.__doc__.split("\n\n")[-1].split())
    trained = (SHELF / preset / "card.json").exists()
    assert last == (in_words(Card.read(SHELF / preset)) if trained else "It has not been trained yet.")
    stages = *made.STAGES, *getattr(made, "ABLATION", ())
    assert callable(made.sets) and all(isinstance(stage, Stage) for stage in stages)
    assert {"aliases", "summary", "training", "deviations"} <= set(made.CARD)
    if trained:
        card = json.loads((SHELF / preset / "card.json").read_text())
        said = {**made.CARD, **made.CARD["training"]}
        del said["training"]
        assert {key: {**card, **card["training"]}[key] for key in said} == said


# One of each kind that is built in seconds.
BUILT = (
    "csp_mobilenet_v2_320_people", "centernet_tiny_224_voc12", "ssdlite_mobilenet_v2_320_voc12",
    "yolo_v1_mobilenet_v2_voc12", "yolo_v3_mobilenet_v2_320_voc12", "overfeat_fast_caltech3",
    "faster_rcnn_mobilenet_v2_fpn_voc12",
)


@pytest.fixture(scope="module")
def load():
    """Many start from one preset."""
    return functools.cache(kerasdet.zoo.load)


@pytest.mark.parametrize(
    "preset", [pytest.param(name, marks=() if name in BUILT else pytest.mark.slow) for name in RECIPES]
)
def test_recipes_build_what_they_are_named_after(preset, load, monkeypatch):
    monkeypatch.setattr(kerasdet.zoo, "load", load)
    made = recipe.read(SHELF / preset / "recipe.py")
    model = made.build(made.STAGES[-1].image_size, None)
    assert model.name == preset and model.image_size == made.STAGES[-1].image_size
