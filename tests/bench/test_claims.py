"""Claims: arms are trained once and compared on the same photos; what is claimed is not tested."""

import csv
import re
import types

import keras
import numpy as np
import pytest
from harness import tiny_backbone
from test_bench import BENCH, bench, rows

from kerasdet.data.dataset import Dataset
from kerasdet.data.scenes import write_scenes, write_shapes
from kerasdet.data.writers import write
from kerasdet.training import voc12


@pytest.fixture(autouse=True)
def beside_common(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCH))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A folder with drawn voc12 and people, and weights of a backbone."""
    folder = tmp_path_factory.mktemp("claims")
    sets = {}
    for split, seed in (("train", 0), ("val", 1)):
        shapes = write_shapes(folder / split, 4, size=(64, 64), seed=seed)
        sets[split] = Dataset(list(shapes), voc12.CLASSES, root=shapes.root)
    write(sets, folder / "voc12", "coco")
    people = {
        split: write_scenes(folder / f"people_{split}", 4, size=(64, 64), seed=seed)
        for split, seed in (("train", 2), ("val", 3))
    }
    write(people, folder / "people", "odgt")
    body = keras.applications.MobileNetV2((64, 64, 3), alpha=0.35, include_top=False, weights=None)
    body.save_weights(folder / "body.weights.h5")
    return folder


def claims(kind, data, out, *arms, steps=1):
    bench(
        "claims", kind, "--data", data, "--backbone", data / "body.weights.h5", "--out", out, "--size", 64,
        "--epochs", 1, "--steps", steps, "--arms", *arms,
    )


@pytest.mark.usefixtures("untraced")
def test_arms_are_trained_once(data, tmp_path, capsys):
    claims("craft", data, tmp_path, "centernet", "centernet_mixup")
    printed = capsys.readouterr()
    assert "== centernet_mixup" in printed.err
    found = rows(printed.out, "arm ")
    assert set(found) >= {"centernet", "centernet_mixup"}
    claims("craft", data, tmp_path, "centernet", "centernet_mixup")
    again = capsys.readouterr()
    assert again.err == "" and rows(again.out, "arm ") == found
    # What was tried out is not taken for the run itself, nor gone on with.
    with pytest.raises(ValueError, match=r"centernet.detections\.npz: made with steps 1, and 2 is asked for"):
        claims("craft", data, tmp_path, "centernet", steps=2)
    for kept in ("detections.npz", "detections.figures.npz"):
        (tmp_path / "craft_64" / "centernet" / kept).unlink()
    with pytest.raises(ValueError, match=r"centernet.config\.json: the run began with steps 1, now it is 2"):
        claims("craft", data, tmp_path, "centernet", steps=2)


@pytest.mark.usefixtures("untraced")
def test_tables_need_no_more_than_what_was_drawn(data, tmp_path, capsys):
    claims("craft", data, tmp_path / "run", "yolo_v3", "yolo_v3_step")
    printed = capsys.readouterr().out
    for path in (tmp_path / "run").rglob("*.figures.npz"):
        kept = tmp_path / "kept" / path.relative_to(tmp_path / "run")
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_bytes(path.read_bytes())
    said = "claims", "craft", "--out", tmp_path / "kept", "--size", 64, "--epochs", 1, "--steps", 1
    bench(*said)
    again = capsys.readouterr()
    tables = again.out.splitlines()
    assert again.err == "" and len(tables) > 10 and tables == printed.splitlines()[-len(tables) :]
    # With photos at hand nothing of it is trained again.
    claims("craft", data, tmp_path / "kept", "yolo_v3", "yolo_v3_step")
    again = capsys.readouterr()
    assert again.err == "" and again.out.splitlines()[-len(tables) :] == tables
    with pytest.raises(ValueError, match=r"detections\.figures\.npz: made with epochs 1, and 8 is asked"):
        bench("claims", "craft", "--out", tmp_path / "kept", "--size", 64)
    for arms, message in ((["--arms", "csp"], "nothing is kept of csp in "), ([], "no arm is kept in ")):
        with pytest.raises(SystemExit):
            bench(*said[:3], tmp_path / "nowhere", *said[4:], *arms)
        assert message in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.usefixtures("untraced")
def test_what_losses_are_worth_early_is_told_epoch_by_epoch(data, tmp_path, capsys):
    claims("craft", data, tmp_path, "csp", "csp_l2")
    printed = capsys.readouterr().out
    early = printed.partition("AP50 after each epoch")[2].splitlines()
    for name in ("csp", "csp_l2"):
        with (tmp_path / "craft_64" / name / "log.csv").open(newline="") as file:
            (epoch,) = csv.DictReader(file)
        assert [name, f"{float(epoch['val_AP50']):.3f}"] in [line.split() for line in early]


def test_without_photos_no_arm_counts_as_trained(tmp_path):
    """Its time is not taken then: the detector is made for the photos' classes."""
    from arms import Arm, Run

    for data, trained in ((None, False), (tmp_path, True)):
        options = types.SimpleNamespace(out=tmp_path, claims="two-stage", size=64, data=data)
        run = Run("fpn", Arm("", None), options)
        assert not run.trained
        run.folder.mkdir(parents=True, exist_ok=True)
        (run.folder / "config.json").touch()
        assert run.trained is trained
        (run.folder / "config.json").unlink()


def test_an_unknown_arm_is_refused_before_any_work(data, tmp_path, capsys):
    with pytest.raises(SystemExit):
        claims("craft", data, tmp_path / "out", "centernet", "centrenet")
    assert "no arm centrenet" in capsys.readouterr().err and not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", ["craft", "two-stage"])
def test_every_arm_says_what_it_is_for(kind, capsys):
    bench("claims", kind, "--list")
    *lines, between, note = capsys.readouterr().out.splitlines()
    assert len(lines) > 10 and all(len(line.split(maxsplit=1)) == 2 for line in lines)
    assert not between and "a GPU trains all of them" in note


def drawn(**figures):
    """Draws of figures: the figure itself, and it again a bit less and a bit more."""
    return {name: value + np.array([0, -0.02, 0.02]) for name, value in figures.items()}


def test_figures_by_size_have_changes_with_intervals(monkeypatch, capsys):
    """On the same draws, so that what all of them share is in none."""
    import claims_two_stage

    ap = {
        "fpn": drawn(AP=0.3, AP_small=0.1, AP_medium=0.2, AP_large=0.4),
        "dc5": drawn(AP=0.4, AP_small=0.05, AP_medium=0.2, AP_large=0.6),
    }
    asked = []

    class Kept:
        photos, trained = 7, False

        def __init__(self, name):
            self.name = name

        def has(self, key):
            return True

        def drawn(self, key="detections", draw=None):
            asked.append((self.name, key))
            if key != "proposals":
                return ap[self.name]
            return {
                figure.replace("AP", f"AR@{count}"): value for figure, value in ap[self.name].items()
                for count in (100, 1000)
            }

    claims_two_stage.tables({name: Kept(name) for name in ap})
    lines = capsys.readouterr().out.splitlines()
    # Draws take long, and are taken once for each.
    assert asked == [
        ("fpn", "detections"), ("dc5", "detections"), ("fpn", "nms_over_all"), ("fpn", "proposals"),
        ("dc5", "proposals"),
    ]
    for title, start in (
        ("1. Feature pyramids, photos: 7", "AP"), ("Recall of 100 proposals", "AR@100"),
        ("Recall of 1000 proposals", "AR@1000"),
    ):
        at = lines.index("changes from fpn", lines.index(title))
        assert lines[at + 1].split() == ["arm", *(f"{start}_{size}" for size in ("small", "medium", "large"))]
        changes = (f"{change} ({change} to {change})" for change in ("-0.050", "+0.000", "+0.200"))
        assert re.split(r"\s{2,}", lines[at + 3]) == ["dc5", *changes] and not lines[at + 4]


def test_branches_are_compared_with_what_the_goals_are_of(monkeypatch, capsys):
    """The middle branch with all of them, weights of their own with shared ones, and all with a pyramid."""
    import claims_two_stage

    ap = {"fpn": 0.2, "dilation_1": 0.3, "trident": 0.25, "own_weights": 0.24, "middle": 0.23}

    class Kept:
        photos, trained = 7, False

        def __init__(self, name):
            self.name = name

        def has(self, key):
            return key != "proposals"

        def drawn(self, key="detections"):
            value = ap["middle" if key == "middle" else self.name]
            return drawn(AP=value, AP_small=value, AP_medium=value, AP_large=value)

    claims_two_stage.tables({name: Kept(name) for name in ap if name != "middle"})
    lines = capsys.readouterr().out.splitlines()
    for title, baseline, row, change in (
        ("The middle branch of trident against all", "trident", "trident, middle branch alone", -0.02),
        ("Weights and blocks", "trident", "own_weights", -0.01),
        ("Branches against a pyramid", "fpn", "trident", +0.05),
    ):
        at = lines.index(f"{title}, photos: 7")
        assert lines[at + 1].endswith(f"change in AP from {baseline}")
        found = [line for line in lines[at:] if re.split(r"\s{2,}", line)[0] == row][0]
        assert f"{change:+.3f} ({change:+.3f} to {change:+.3f})" in found
    # What has not been trained has no table.
    assert not any("trident_open against all" in line for line in lines)


def test_an_arm_without_its_baseline_has_no_changes():
    from arms import changes, rows

    some = {"dc5": drawn(AP=0.4, AP_small=0.1)}
    assert changes(some, ["AP_small"], "fpn") == []
    assert rows(some, ["AP"], "fpn") == [("dc5", "0.400 (0.381 to 0.419)", "")]


@pytest.mark.parametrize("neck", ["fpn", "c4"])
def test_time_is_told_part_by_part(neck, monkeypatch, capsys, untraced):
    """What each graph gives, up to the whole; not how long it takes."""
    import claims_two_stage

    from kerasdet.models.faster_rcnn import FasterRCNN

    detector = FasterRCNN(
        ("a",), backbone=tiny_backbone(), image_size=64, neck=neck, channels=8, head_units=8, before=(20, 20),
        proposals=(10, 10), regions=8,
    )
    given = {}

    def once(tasks, rounds, settle):
        given.update({part: task() for part, task in tasks.items()})
        return {part: np.full(rounds, 0.001) for part in tasks}

    monkeypatch.setattr(claims_two_stage, "interleave", once)
    claims_two_stage._print_times({neck: detector})
    parts = [
        "backbone", "and proposal head", "and proposals", "and proposals, one suppression", "and regions"
    ]
    assert list(given) == parts
    lines = capsys.readouterr().out.splitlines()[3:]
    assert [line.split("  ")[0] for line in lines] == [f"{neck}: {part}" for part in parts]
    deepest = given["backbone"]["P5"] if neck == "fpn" else given["backbone"]
    assert deepest.shape == ((1, 2, 2, 64) if neck == "fpn" else (1, 4, 4, 48))
    assert "object_logit" in given["and proposal head"] and "class" in given["and regions"]
    assert given["and proposals"][0].shape == (1, 10, 4)


def test_a_tenth_of_the_objects_gets_another_class(tmp_path):
    from claims_craft import mislabel

    data = write_shapes(tmp_path, 200, size=(64, 64), seed=0)
    wrong = mislabel(data)
    before, after = (np.concatenate([sample.labels for sample in each]) for each in (data, wrong))
    assert 0.05 < (before != after).mean() < 0.15
    assert after.min() == 0 and after.max() == len(data.classes) - 1


def test_variants_differ_from_csp_in_the_loss_that_they_are_named_after(tmp_path):
    from claims_craft import _cross_entropy, _csp, _one_cell, _squared

    data = write_scenes(tmp_path, 2, size=(64, 64))

    def losses(cls):
        keras.utils.set_random_seed(0)
        model = _csp(data.classes, 64, None, backbone=tiny_backbone(), parts=(), cls=cls)
        _, targets = next(iter(data.batches(2, model)))
        # Far off: where errors are small, smooth-L1 is squared too.
        rng = np.random.default_rng(0)
        raw = {
            name: keras.ops.convert_to_tensor(rng.normal(0, 3, (2, *x.shape[1:])).astype("float32"))
            for name, x in model.output.items()
        }
        parts = {name: float(value) for name, value in model.loss_parts(targets, raw).items()}
        return parts, model.paper_targets(targets), raw

    (paper, goal, raw) = losses(None)
    found = {make.__name__: losses(make())[0] for make in (_one_cell, _cross_entropy, _squared)}
    changed = {
        variant: {name for name, value in parts.items() if abs(value - paper[name]) > 1e-6}
        for variant, parts in found.items()
    }
    assert changed == {
        "_one_cell": {"center_loss"}, "_cross_entropy": {"center_loss"},
        "_squared": {"scale_loss", "offset_loss"},
    }
    # Plain cross-entropy, by Keras, over all cells; divided by the objects.
    logits, positive = (keras.ops.convert_to_numpy(x) for x in (raw["center_logits"], goal["positive"]))
    expected = keras.ops.binary_crossentropy(positive, logits, from_logits=True)
    expected = 0.01 * float(keras.ops.sum(expected * goal["valid"])) / positive.sum()
    assert found["_cross_entropy"]["center_loss"] == pytest.approx(expected, rel=1e-4)
