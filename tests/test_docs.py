"""The commands that draw the docs' pictures."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from overfeats import small
from PIL import Image

DOCS = Path(__file__).parents[1] / "docs"


@pytest.fixture
def overfeat():
    spec = importlib.util.spec_from_file_location("docs_overfeat", DOCS / "overfeat.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_overfeats_pictures(overfeat, tmp_path, capsys):
    small(("cat", "dog")).save(tmp_path / "mine.keras")
    photo = np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8)
    Image.fromarray(photo).save(tmp_path / "photo.png")
    code = overfeat.main(
        [str(tmp_path / "mine.keras"), str(tmp_path / "photo.png"), "--class", "dog", "--score", "0.1",
         "--out", str(tmp_path / "drawn")]
    )
    assert code == 0 and capsys.readouterr().out.startswith("dog: 36 windows, 36 of them sure, ")
    drawn = {path.name: np.asarray(Image.open(path)) for path in (tmp_path / "drawn").iterdir()}
    assert set(drawn) == {"coarse.png", "fine.png", "windows.png", "merged.png", "suppressed.png"}
    assert {picture.shape for picture in drawn.values()} == {(480, 480, 3)}
    assert not np.array_equal(drawn["coarse.png"], drawn["fine.png"])
    with pytest.raises(SystemExit):
        overfeat.main([str(tmp_path / "mine.keras"), str(tmp_path / "photo.png"), "--class", "bird"])
    assert "--class is 'bird'; the model knows cat, dog" in capsys.readouterr().err


def test_the_surer_a_window_the_brighter_its_square(overfeat):
    from kerasdet.views import View

    windows = np.array([[0, 0, 0.5, 0.5], [0.5, 0, 1, 0.5]], np.float32)
    view = View(np.array([[0.0], [1.0]]), np.zeros((2, 1, 4)), windows)
    picture = np.asarray(overfeat.heat_map(np.zeros((8, 8, 3), np.uint8), view, 0)).astype(int)
    quiet, sure = picture[120, 120], picture[120, 360]
    assert sure[0] > 150 > 30 > quiet[0] and not picture[400, 240].any()
