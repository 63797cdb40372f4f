"""Presets: looked up, loaded with checked weights, fitted to other classes, saved; and load."""

import json
import shutil

import h5py
import keras
import numpy as np
import pytest
from harness import tiny_backbone
from keras import ops
from presets import FIELDS, tiny_csp, write_preset

import kerasdet
from kerasdet import fetching, zoo
from kerasdet.backbones.common import leaves
from kerasdet.models.csp import CSP
from kerasdet.models.ssd import SSD
from kerasdet.models.yolo_v3 import YOLOv3

pytestmark = pytest.mark.usefixtures("shelf")
NAME = "tiny_64_people"


@pytest.fixture
def photo():
    return np.random.default_rng(0).integers(0, 256, (80, 100, 3), dtype=np.uint8)


@pytest.fixture
def own(shelf, tmp_path):
    """A copy of the preset's folder, to damage."""
    return shutil.copytree(shelf / NAME, tmp_path / NAME)


def edit(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


# === Saving ===


def test_a_preset_leaves_the_optimizers_state_behind(tmp_path):
    detector = tiny_csp()
    zoo.save_preset(detector, tmp_path / "plain", FIELDS)
    detector.compile("adamw")
    detector.optimizer.build(detector.trainable_variables)
    zoo.save_preset(detector, tmp_path / "compiled", FIELDS)
    plain, compiled = (tmp_path / name / "model.weights.h5" for name in ("plain", "compiled"))
    assert compiled.stat().st_size == pytest.approx(plain.stat().st_size, rel=0.01)
    with h5py.File(compiled) as file:
        assert "optimizer" not in file


# === Looking up ===


def test_names_and_cards_by_name_and_alias():
    assert NAME in zoo.names()
    assert zoo.card("tiny") == zoo.card(NAME)
    assert zoo.card("tiny").classes == ["person"]
    assert NAME in [card.name for card in zoo.cards()]


def test_an_unknown_preset_is_answered_with_the_nearest():
    with pytest.raises(ValueError, match=r"no preset 'tiny_64_peple'\. Did you mean 'tiny_64_people'"):
        zoo.load("tiny_64_peple")
    with pytest.raises(ValueError, match=r"no preset 'zzzz'\. There is: .*tiny"):
        zoo.card("zzzz")


def test_shelves_of_the_environment_come_first(shelf, tmp_path, monkeypatch):
    write_preset(tmp_path / "mine" / NAME, summary="mine")
    monkeypatch.setenv(zoo.SHELVES, f"{tmp_path / 'mine'}:{shelf}")
    assert zoo.card(NAME).summary == "mine"
    monkeypatch.setenv(zoo.SHELVES, f"{shelf}:{tmp_path / 'mine'}")
    assert zoo.card(NAME).summary == FIELDS["summary"]
    monkeypatch.setenv(zoo.SHELVES, str(tmp_path / "gone"))
    with pytest.raises(ValueError, match="KERASDET_ZOO names the folder .*gone"):
        zoo.names()


def test_a_folder_without_card_is_no_preset(tmp_path, monkeypatch):
    (tmp_path / "only_a_recipe").mkdir()
    (tmp_path / "only_a_recipe" / "recipe.py").touch()
    monkeypatch.setenv(zoo.SHELVES, str(tmp_path))
    assert "only_a_recipe" not in zoo.names()
    with pytest.raises(ValueError, match="Did you mean 'only_a_recipe'"):
        zoo.recipe("only_recipe")


# === Loading ===


def test_a_preset_is_what_was_saved_but_for_rounding(photo, untraced):
    made, loaded = tiny_csp(), zoo.load("tiny")
    assert isinstance(loaded, kerasdet.Detector) and isinstance(loaded, keras.Model)
    assert (loaded.classes, loaded.parts, loaded.image_size) == (("person",), ("head",), 64)
    for before, after in zip(made.get_weights(), loaded.get_weights(), strict=True):
        assert after.dtype == np.float32
        np.testing.assert_allclose(after, before, rtol=5e-4, atol=1e-7)
    before, after = (d.detect(photo, score=0) for d in (made, loaded))
    np.testing.assert_allclose(after.scores[:5], before.scores[:5], rtol=0.02)


def test_kernels_are_stored_in_half_and_vectors_in_full(shelf):
    kinds = set()
    with h5py.File(shelf / NAME / "model.weights.h5") as file:
        file.visititems(
            lambda _, item: kinds.add((item.dtype.name, item.ndim > 1))
            if isinstance(item, h5py.Dataset)
            else None
        )
    assert kinds == {("float16", True), ("float32", False)}


def test_without_weights_nothing_is_loaded(own, monkeypatch):
    monkeypatch.delenv(fetching.PLACE, raising=False)
    (own / "model.weights.h5").unlink()
    fresh = zoo._load_folder(own, ("a", "b"), False, None)
    assert fresh.classes == ("a", "b")
    with pytest.raises(FileNotFoundError, match=r"model\.weights\.h5: the preset's weights are missing"):
        kerasdet.load(own)


def test_without_weights_nothing_is_frozen(tmp_path):
    frozen = SSD(
        ("person",), backbone="mobilenet_v2_0.35", freeze_until="P3", image_size=64, name="ssd",
        anchor_sizes=(0.2, 0.5, 0.9),
    )
    zoo.save_preset(frozen, tmp_path / "ssd", FIELDS)
    fresh = zoo._load_folder(tmp_path / "ssd", None, False, 128)
    assert len(frozen.trainable_variables) < len(fresh.trainable_variables)
    assert all(layer.trainable for layer in leaves(fresh))
    # Boxes are as many pixels as before.
    assert fresh.get_config()["anchor_sizes"] == pytest.approx([0.1, 0.25, 0.45])


def head(detector):
    return detector.get_layer("head_center").get_weights()


def test_known_classes_keep_their_head_and_new_ones_start_afresh():
    before = zoo.load("tiny")
    after = zoo.load("tiny", classes=("dog", "person"))
    assert after.classes == ("dog", "person") and after.parts == ("head",)
    (old_kernel, old_bias), (kernel, bias) = head(before), head(after)
    np.testing.assert_array_equal(kernel[..., 1], old_kernel[..., 0])
    assert bias[1] == old_bias[0]
    # Fresh: standard deviation 0.01, where the preset's head was made a hundred times that.
    assert 0.001 < kernel[..., 0].std() < 0.03
    for one, other in zip(before.layers, after.layers, strict=True):
        if other.name != "head_center":
            for a, b in zip(one.get_weights(), other.get_weights(), strict=True):
                np.testing.assert_array_equal(a, b, err_msg=other.name)


def test_parts_stay_with_a_class_that_is_known_or_where_they_are_named():
    known = zoo.load("tiny")
    assert zoo.load("tiny", classes=["person", "dog"]).parts == ("head",)
    for options in ({"classes": ["cat"]}, {"parts": ()}, {"classes": ["person", "dog"], "parts": ()}):
        bare = zoo.load("tiny", **options)
        assert bare.parts == () and bare.classes == tuple(options.get("classes", ["person"]))
        for name in ("head_scale", "neck_block2"):
            layers = [[each for each in leaves(d) if each.name.startswith(name)] for d in (known, bare)]
            for one, other in zip(*layers, strict=True):
                for a, b in zip(one.get_weights(), other.get_weights(), strict=True):
                    np.testing.assert_array_equal(a, b, err_msg=name)
    assert zoo.load("tiny", classes=["cat"], parts=["head"]).parts == ("head",)
    with pytest.raises(ValueError, match=r"parts has 'tail', and the detector's parts are \['head'\]"):
        zoo.load("tiny", parts=["tail"])


@pytest.mark.parametrize("kind", ["classes", "parts"])
def test_a_text_is_no_list_of_names(kind):
    with pytest.raises(ValueError, match=rf"{kind} is the text 'face'; give a list of names, such as"):
        zoo.load("tiny", **{kind: "face"})


def test_one_other_class_starts_afresh_as_well():
    assert np.abs(head(zoo.load("tiny", classes=["face"]))[0]).max() < 0.1
    assert np.abs(head(zoo.load("tiny", classes=["person"]))[0]).max() > 0.5


def ssd(classes):
    detector = SSD(
        classes, backbone=tiny_backbone(64), image_size=64, anchor_sizes=(0.2, 0.3, 0.4, 0.5), name="tiny"
    )
    rng = np.random.default_rng(1)
    detector.set_weights([rng.normal(size=w.shape, scale=0.2) ** 2 for w in detector.get_weights()])
    return detector


def test_every_anchor_keeps_its_channel_of_a_known_class(photo):
    """SSD: six boxes a cell, three maps, and a background that no class owns."""
    before = ssd(("cat", "dog", "cow"))
    after = zoo.adapt(before, classes=("ox", "cow", "dog", "cat", "pig"))
    square = photo[None, :64, :64]
    old, new = (
        {k: ops.convert_to_numpy(v) for k, v in d(square, training=False).items()} for d in (before, after)
    )
    for now, then in ((1, 2), (2, 1), (3, 0)):
        np.testing.assert_allclose(new["class_logits"][..., now], old["class_logits"][..., then], rtol=1e-5)
    assert (np.ptp(old["class_logits"], axis=-1) > 0).all()
    np.testing.assert_array_equal(new["background_logit"], old["background_logit"])
    np.testing.assert_array_equal(new["boxes"], old["boxes"])
    # The new classes start afresh: from biases of 0, and so of 0 where nothing is seen.
    for k in range(3):
        kernel, bias = after.get_layer(f"head{k}_class").get_weights()
        fresh = bias.reshape(6, 5)[:, [0, 4]], kernel.reshape(-1, 6, 5)[..., [0, 4]]
        assert not fresh[0].any() and (fresh[1] < 0).any()


def test_another_image_size_keeps_all_weights(tmp_path):
    small = CSP(
        ("person",), backbone="mobilenet_v1_0.25", image_size=64, stride=8, channels=16, name="m"
    )
    zoo.save_preset(small, tmp_path / "m", FIELDS)
    larger = zoo.adapt(kerasdet.load(tmp_path / "m"), image_size=96)
    assert larger.image_size == 96 and larger.output["scale"].shape[1:3] == (12, 12)
    for before, after in zip(small.get_weights(), larger.get_weights(), strict=True):
        np.testing.assert_allclose(after, before, rtol=5e-4, atol=1e-7)
    with pytest.raises(ValueError, match="100"):
        zoo.adapt(small, image_size=100)


ANCHORS = ((8, 8), (16, 16), (32, 32))


def yolo():
    return YOLOv3(
        ("person",), backbone=tiny_backbone(), image_size=64, anchors=ANCHORS, channels=8, name="yolo"
    )


def test_other_anchors_keep_all_weights(tmp_path, monkeypatch):
    zoo.save_preset(yolo(), tmp_path / "yolo", FIELDS)
    monkeypatch.setenv(zoo.SHELVES, str(tmp_path))
    before, pairs = zoo.load("yolo"), ((6, 9.5), (14, 20), (30, 40))
    for after in (zoo.load("yolo", anchors=pairs), zoo.adapt(before, anchors=pairs)):
        assert (before.anchors, after.anchors) == (ANCHORS, pairs)
        for one, other in zip(before.get_weights(), after.get_weights(), strict=True):
            np.testing.assert_array_equal(one, other)
    assert zoo.adapt(before, anchors=ANCHORS) is before


def test_anchors_that_a_detector_cannot_have_are_told():
    with pytest.raises(ValueError, match="anchors are of YOLOv3, and this is a CSP; leave them out"):
        zoo.load("tiny", anchors=ANCHORS)
    with pytest.raises(ValueError, match="there are 6 anchors, and the weights are of 3; give as many"):
        zoo.adapt(yolo(), anchors=ANCHORS * 2)


def test_adapt_hands_back_what_fits_already():
    detector = tiny_csp()
    assert zoo.adapt(detector, classes=["person"], image_size=64) is detector


def test_tampered_weights_are_refused(own):
    data = bytearray((own / "model.weights.h5").read_bytes())
    data[len(data) // 2] ^= 1
    (own / "model.weights.h5").write_bytes(data)
    with pytest.raises(ValueError, match=r"model\.weights\.h5: these are not the weights .*sha256"):
        kerasdet.load(own)


def test_a_configuration_of_another_detector_is_refused(own):
    edit(own / "config.json", **{"class": "kerasdet>Nothing"})
    with pytest.raises(ValueError, match="no detector 'kerasdet>Nothing'"):
        kerasdet.load(own)
    for text in ('{"class": ', "{}"):
        (own / "config.json").write_text(text)
        with pytest.raises(ValueError, match="config.json: damaged"):
            kerasdet.load(own)


# === Saving ===


def test_a_missing_field_leaves_the_old_preset_as_it_was(own):
    before = {path.name: path.read_bytes() for path in own.iterdir()}
    fields = {key: value for key, value in FIELDS.items() if key != "licence"}
    with pytest.raises(ValueError, match="licence is missing"):
        zoo.save_preset(tiny_csp(classes=("a", "b")), own, fields)
    assert {path.name: path.read_bytes() for path in own.iterdir()} == before


def test_a_weight_beyond_float16_is_refused(tmp_path):
    detector = tiny_csp()
    layer = detector.get_layer("head_scale")
    kernel, bias = layer.get_weights()
    layer.set_weights([np.full_like(kernel, 1e5), bias])
    with pytest.raises(ValueError, match="1e\\+05 does not fit float16"):
        zoo.save_preset(detector, tmp_path / "x", FIELDS)


# === kerasdet.load ===


def test_load_takes_keras_files_presets_and_folders(shelf, tmp_path, photo, untraced):
    detector = tiny_csp()
    detector.keep_float = "^neck"
    detector.save(tmp_path / "mine.keras")
    loaded = kerasdet.load(tmp_path / "mine.keras")
    # Loaded, or with other classes: what int8 leaves in float comes along.
    assert loaded.keep_float == zoo.adapt(loaded, ["cat"]).keep_float == "^neck"
    with pytest.raises(ValueError, match=r"keep_float is '\(', no regular expression"):
        detector.keep_float = "("
    np.testing.assert_array_equal(
        loaded.detect(photo, score=0).boxes, detector.detect(photo, score=0).boxes
    )
    assert kerasdet.load("tiny").classes == ("person",)
    assert kerasdet.load(shelf / NAME).classes == ("person",)


def test_load_says_what_it_cannot_take(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"gone\.keras: no such file"):
        kerasdet.load("gone.keras")
    with pytest.raises(FileNotFoundError, match=r"gone\.tflite: no such file"):
        kerasdet.load("gone.tflite")
    with pytest.raises(ValueError, match="no preset 'gone'"):
        kerasdet.load("gone")
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(ValueError, match=r"notes\.txt: not a detector that can be loaded"):
        kerasdet.load("notes.txt")
    (tmp_path / "broken.keras").write_text("x")
    with pytest.raises(ValueError, match=r"broken\.keras: cannot be read as a Keras model"):
        kerasdet.load("broken.keras")
    # A folder that happens to bear a preset's name is not in its way.
    (tmp_path / "tiny").mkdir()
    assert kerasdet.load("tiny").classes == ("person",)


def test_a_keras_model_that_is_no_detector(tmp_path):
    keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)]).save(tmp_path / "other.keras")
    with pytest.raises(ValueError, match="holds a Sequential, not a kerasdet detector"):
        kerasdet.load(tmp_path / "other.keras")
