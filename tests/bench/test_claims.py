"""Claims: arms are trained once and compared on the same photos; what is claimed is not tested."""

import csv

import keras
import numpy as np
import pytest
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
    (tmp_path / "craft_64" / "centernet" / "detections.npz").unlink()
    with pytest.raises(ValueError, match=r"centernet.config\.json: the run began with steps 1, now it is 2"):
        claims("craft", data, tmp_path, "centernet", steps=2)


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
        model = _csp(data.classes, 64, None, backbone="mobilenet_v2_0.35", parts=(), cls=cls)
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
    changed = {
        make.__name__: {name for name, value in losses(make())[0].items() if abs(value - paper[name]) > 1e-6}
        for make in (_one_cell, _cross_entropy, _squared)
    }
    assert changed == {
        "_one_cell": {"center_loss"}, "_cross_entropy": {"center_loss"},
        "_squared": {"scale_loss", "offset_loss"},
    }
    # Plain cross-entropy, by Keras, over all cells; divided by the objects.
    logits, positive = (keras.ops.convert_to_numpy(x) for x in (raw["center_logits"], goal["positive"]))
    expected = keras.ops.binary_crossentropy(positive, logits, from_logits=True)
    expected = 0.01 * float(keras.ops.sum(expected * goal["valid"])) / positive.sum()
    assert losses(_cross_entropy())[0]["center_loss"] == pytest.approx(expected, rel=1e-4)
