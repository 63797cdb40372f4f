"""Files from strangers: no code is run, no other file is read, and no memory is filled."""

import json
import threading
import zipfile
from concurrent.futures import ThreadPoolExecutor

import h5py
import keras
import numpy as np
import pytest
from harness import tiny_backbone
from presets import tiny_csp

import kerasdet
from kerasdet import untrusted


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A detector as `model.save` writes it."""
    path = tmp_path_factory.mktemp("saved") / "mine.keras"
    tiny_csp().save(path)
    return path


def changed(saved, path, edit=None, compression=zipfile.ZIP_STORED, **members):
    """The file anew, its configuration (as text) edited, with members replaced, added or (None) left out."""
    with zipfile.ZipFile(saved) as archive:
        contents = {name: archive.read(name) for name in archive.namelist()}
    if edit is not None:
        contents["config.json"] = edit(contents["config.json"].decode()).encode()
    contents |= {name.replace("__", "."): content for name, content in members.items()}
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in contents.items():
            if content is not None:
                archive.writestr(name, content)
    return path


# === .keras ===


def test_a_detector_passes_with_any_backbone_of_built_in_layers(saved):
    untrusted.check_keras(saved)
    sums = tiny_backbone(64)
    total = sums.output["P2"] + 1.0  # an operation, which is in none of Keras' public modules
    model = keras.Model(sums.input, dict(sums.output, P2=total))
    untrusted.check_config(keras.saving.serialize_keras_object(model))


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("keras.layers", "Lambda"),
        (None, "__lambda__"),
        ("keras.layers", "TorchModuleWrapper"),
        ("keras.layers", "TFSMLayer"),
        ("keras.layers", "StringLookup"),
        ("keras.utils", "get_file"),
        ("keras.src.utils.file_utils", "extract_archive"),
        ("keras.config", "enable_unsafe_deserialization"),
        ("os", "system"),
        ("builtins.exec", "exec"),
    ],
)
def test_a_class_that_no_detector_is_made_of_is_refused(saved, tmp_path, module, name):
    def edit(text):
        config = json.loads(text)
        layer = config["config"]["backbone"]["config"]["layers"][3]
        layer |= {"module": module, "class_name": name}
        return json.dumps(config)

    path = changed(saved, tmp_path / "evil.keras", edit)
    with pytest.raises(ValueError, match=rf"evil\.keras: cannot be read .*it has a {module}\.{name}, "):
        kerasdet.load(path)


def test_a_name_of_ours_that_is_not_registered_opens_no_door(saved, tmp_path):
    def edit(text):
        config = json.loads(text)
        layer = config["config"]["backbone"]["config"]["layers"][3]
        layer |= {"module": "keras.utils", "class_name": "get_file", "registered_name": "kerasdet>Nothing"}
        return json.dumps(config)

    path = changed(saved, tmp_path / "evil.keras", edit)
    with pytest.raises(ValueError, match=r"it has a keras\.utils\.get_file, of which no detector"):
        kerasdet.load(path)


@pytest.mark.parametrize("weights", ["imagenet", "/etc/passwd"])
def test_weights_of_elsewhere_are_neither_opened_nor_fetched(saved, tmp_path, weights):
    def edit(text):
        config = json.loads(text)
        config["config"]["backbone_weights"] = weights
        return json.dumps(config)

    path = changed(saved, tmp_path / "evil.keras", edit)
    with pytest.raises(ValueError, match=r"evil\.keras: cannot be read .*it names weights elsewhere"):
        kerasdet.load(path)


def test_a_file_that_is_packed_otherwise_than_keras_does_is_refused(saved, tmp_path):
    path = tmp_path / "evil.keras"
    with pytest.raises(ValueError, match="it holds '../../evil.py', which is no part of a detector"):
        kerasdet.load(changed(saved, path, **{"../../evil.py": "x"}))
    with pytest.raises(ValueError, match="evil.keras: .*config.json is missing"):
        kerasdet.load(changed(saved, path, config__json=None))
    with pytest.raises(ValueError, match="is compressed, which Keras does not do"):
        kerasdet.load(changed(saved, path, compression=zipfile.ZIP_DEFLATED))
    with pytest.raises(ValueError, match="evil.keras: cannot be read as a Keras model: .*recursion"):
        kerasdet.load(changed(saved, path, lambda text: "[" * 100_000 + "]" * 100_000))
    with pytest.raises(ValueError, match="evil.keras: cannot be read as a Keras model"):
        kerasdet.load(changed(saved, path, lambda text: text.replace('"strides": [2, 2]', '"strides": {}')))


# === Weights ===


def bomb(file):
    file.create_dataset("huge", (10**6, 10**6), "float32", chunks=(1000, 1000))


def external(file):
    file.create_dataset("secret", (8,), "uint8", external=[("/etc/passwd", 0, 8)])


def virtual(file):
    layout = h5py.VirtualLayout((8,), "uint8")
    layout[:] = h5py.VirtualSource("/etc/passwd", "x", (8,))
    file.create_virtual_dataset("secret", layout)


def linked(file):
    file["inner/secret"] = h5py.ExternalLink("/etc/passwd", "/")


def soft(file):
    file["inner/again"] = h5py.SoftLink("/")


@pytest.mark.parametrize(
    ("fill", "said"),
    [
        (bomb, r"/huge has the shape \(1000000, 1000000\)"),
        (external, "/secret has its values in another file"),
        (virtual, "/secret has its values in another file"),
        (linked, "/inner/secret is a link to elsewhere"),
        (soft, "/inner/again is a link to elsewhere"),
    ],
)
def test_weights_are_plain_numbers_of_their_own(saved, tmp_path, fill, said):
    path = tmp_path / "evil.weights.h5"
    with h5py.File(path, "w") as file:
        file["a"] = np.zeros(1000, np.float32)
        fill(file)
    with pytest.raises(ValueError, match=said):
        untrusted.check_hdf5(path)
    with pytest.raises(ValueError, match=rf"evil\.weights\.h5: not the weights .*{said}"):
        kerasdet.backbones.build("mobilenet_v2_0.35", weights=path, image_size=64)
    evil = changed(saved, tmp_path / "evil.keras", model__weights__h5=path.read_bytes())
    with pytest.raises(ValueError, match=rf"evil\.keras: .*{said}"):
        kerasdet.load(evil)


def test_damaged_weights_are_said_to_be(tmp_path):
    path = tmp_path / "damaged.weights.h5"
    with h5py.File(path, "w") as file:
        file["values"] = np.zeros(1000, np.float32)
        place = h5py.h5o.get_info(file["values"].id).addr
    data = bytearray(path.read_bytes())
    data[place] ^= 0xFF  # the version of the header
    path.write_bytes(data)
    with pytest.raises(ValueError, match="damaged: .*open object"):
        untrusted.check_hdf5(path)


def test_links_in_a_circle_end(tmp_path):
    with h5py.File(tmp_path / "circle.h5", "w") as file:
        file["inner/outer"] = file["/"]
        file["values"] = np.zeros(1000)
    untrusted.check_hdf5(tmp_path / "circle.h5")


@pytest.mark.parametrize("neck", ["light", "fpn"])
def test_a_network_that_no_file_of_that_size_can_fill(saved, tmp_path, neck):
    """Small text that asks for gigabytes is refused before there are any."""
    def widened(text):
        config = json.loads(text)
        config["config"] |= {"channels": 30_000, "neck": neck}
        return json.dumps(config)

    path = changed(saved, tmp_path / "wide.keras", widened)
    with pytest.raises(ValueError, match=r"wide\.keras: .*of a network of \d+ numbers and more, and"):
        kerasdet.load(path)
    # What refuses is gone again.
    assert kerasdet.load(saved).classes == ("person",)


def test_what_other_threads_build_meanwhile_is_not_counted(saved, monkeypatch):
    monkeypatch.setattr(untrusted, "MAX_NUMBERS", 0)
    monkeypatch.setattr(untrusted, "SOME_NUMBERS", 10)

    def build():
        keras.layers.Dense(1, use_bias=False).build((None, 100))

    with ThreadPoolExecutor() as others, untrusted.no_more_weights_than(saved):
        others.submit(build).result()
        with pytest.raises(ValueError, match="of a network of 100 numbers and more"):
            build()


def test_threads_that_load_wait_for_each_other(saved, monkeypatch):
    """Else the one that ends last would leave the counting of the one that began first."""
    original = keras.layers.Layer.add_weight
    monkeypatch.setattr(keras.layers.Layer, "add_weight", original)  # put back whatever becomes of it
    entered, left = threading.Event(), threading.Event()

    def load():
        with untrusted.no_more_weights_than(saved):
            entered.set()
            left.wait(60)

    other = threading.Thread(target=load)
    with untrusted.no_more_weights_than(saved):
        other.start()
        together = entered.wait(0.2)
    left.set()
    other.join()
    assert entered.is_set() and not together
    assert keras.layers.Layer.add_weight is original


def test_a_square_that_fills_the_memory(saved, tmp_path):
    def enlarged(text):
        return text.replace('"image_size": 64', '"image_size": 640000')

    path = changed(saved, tmp_path / "large.keras", enlarged)
    with pytest.raises(ValueError, match=r"large\.keras: .*image_size is 640000; give 8192 at most"):
        kerasdet.load(path)
