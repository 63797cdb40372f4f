"""The built wheel carries the shelf, and works installed elsewhere, without the checkout or network."""

import email
import importlib.metadata
import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]

OFFLINE = """
import os, socket, sys
def refuse(*_):
    raise OSError("the network was asked for")
socket.socket.connect = socket.getaddrinfo = refuse
class Undeclared:
    modules = set(os.environ["UNDECLARED"].split())
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in self.modules:
            raise ModuleNotFoundError(f"{name} is of no package that the wheel asks for", name=name)
sys.meta_path.insert(0, Undeclared())
import kerasdet, numpy
assert kerasdet.__file__.startswith(sys.prefix), kerasdet.__file__
for name in sys.argv[1:]:
    assert name in kerasdet.zoo.names(), kerasdet.zoo.names()
    found = kerasdet.zoo.load(name).detect(numpy.zeros((48, 64, 3), numpy.uint8), score=0.0)
    print(name, found.photo.shape, found.boxes.shape[1])
"""


@pytest.fixture(scope="module")
def wheel(shelf, tmp_path_factory):
    """The wheel of this checkout, with the tests' tiny preset on the shelf besides its own."""
    source = tmp_path_factory.mktemp("source")
    junk = shutil.ignore_patterns("__pycache__")
    for name in ("kerasdet", "zoo"):
        shutil.copytree(ROOT / name, source / name, ignore=junk)
    for name in ("pyproject.toml", "README.md", "LICENSE", ".gitignore"):
        shutil.copy(ROOT / name, source)
    page = source / "export" / "web" / "dist" / "assets"
    page.mkdir(parents=True)
    for file in (page / "litert.wasm", page.parent / "index.html"):
        file.write_text("built")
    shutil.copytree(shelf / "tiny_64_people", source / "zoo" / "tiny_64_people")
    built = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "-o", built, source]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    return next(built.glob("kerasdet-*.whl"))


def undeclared(wheel):
    """Top modules of this environment that are of no package which the wheel asks for, directly or not."""
    with zipfile.ZipFile(wheel) as archive:
        (entry,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        metadata = email.message_from_bytes(archive.read(entry))
    left, declared = [Requirement(text) for text in metadata.get_all("Requires-Dist")], {}
    left = [each for each in left if not each.marker or each.marker.evaluate({"extra": ""})]
    while left:
        wanted = left.pop()
        name = canonicalize_name(wanted.name)
        new = {"", *wanted.extras} - declared.get(name, set())
        if not new:
            continue
        declared.setdefault(name, set()).update(new)
        try:
            texts = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue  # of another system or Python
        left += [
            each for each in map(Requirement, texts)
            if not each.marker or any(each.marker.evaluate({"extra": extra}) for extra in new)
        ]
    return {
        module for module, packages in importlib.metadata.packages_distributions().items()
        if not any(canonicalize_name(package) in {*declared, "kerasdet"} for package in packages)
    }


def test_what_the_wheel_carries(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    for path in (ROOT / "kerasdet").rglob("*.py"):
        assert str(path.relative_to(ROOT)) in names
    for file in ("card.json", "config.json", "labels.txt", "model.weights.h5"):
        assert f"kerasdet/_zoo/tiny_64_people/{file}" in names
    assert {"kerasdet/_web/index.html", "kerasdet/_web/assets/litert.wasm"} <= names
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"kerasdet"}
    assert any(name.endswith("licenses/LICENSE") for name in names)
    # Indices of packages take 100 MB, of which the page, when it is built, has some 20.
    assert wheel.stat().st_size < 80e6
    entry = next(name for name in names if name.endswith("entry_points.txt"))
    assert b"kerasdet = kerasdet.cli:app" in zipfile.ZipFile(wheel).read(entry)


CARDS = sorted(path.parent.name for path in ROOT.glob("zoo/*/card.json"))


@pytest.mark.parametrize(
    "presets",
    [
        # Weights that the wheel has not are fetched, see test_fetching.
        ["csp_mobilenet_v2_320_people"],
        pytest.param(CARDS, marks=pytest.mark.slow, id="all"),
    ],
)
def test_the_installed_wheel_detects_offline(wheel, tmp_path, presets):
    """In an environment of its own."""
    environment = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    python = environment / "bin" / "python"
    subprocess.run(
        [
            sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-index",
            "--no-deps", wheel,
        ],
        check=True,
    )
    # The dependencies are those of the tests; .pth files there (this checkout's among them) are not
    # followed from here.
    packages = next((environment / "lib").glob("python*/site-packages"))
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    presets = ["tiny_64_people", *presets]
    clean = {
        key: value for key, value in os.environ.items() if key not in ("KERASDET_ZOO", "PYTHONPATH")
    }
    # The largest presets' weights are elsewhere: here, in the checkout.
    clean["KERASDET_WEIGHTS"] = str(ROOT / "zoo")
    beyond = undeclared(wheel)
    # Tests have what users need not have; and what the wheel needs it asks for.
    assert {"pytest", "skimage"} <= beyond and not beyond & {"keras", "numpy", "h5py", "cv2", "PIL"}
    clean["UNDECLARED"] = " ".join(beyond)
    result = subprocess.run(
        [python, "-c", OFFLINE, *presets], cwd=tmp_path, env=clean, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines() == [f"{name} (48, 64, 3) 4" for name in presets]
    command = environment / "bin" / "kerasdet"
    listed = subprocess.run([command, "zoo"], cwd=tmp_path, env=clean, capture_output=True, text=True)
    assert listed.returncode == 0 and "tiny_64_people" in listed.stdout
