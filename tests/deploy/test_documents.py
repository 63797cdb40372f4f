"""What the documents have people type, run on a file of ours."""

import re
from pathlib import Path

import pytest
from discs import CLASSES, photo
from needed import needed
from PIL import Image

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("document", ["export/android.md", "README.md"])
def test_mediapipe_is_asked_as_the_documents_say(document, exported, tmp_path, monkeypatch, capsys):
    needed("mediapipe")
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / document).read_text(), re.DOTALL)
    (code,) = (block for block in blocks if "ObjectDetectorOptions" in block)
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    place = home if document == "export/android.md" else tmp_path
    (place / "mine.tflite").write_bytes(exported()[0].read_bytes())
    picture, boxes, labels = photo(5)
    Image.fromarray(picture).save(tmp_path / "photo.png")
    monkeypatch.chdir(tmp_path)
    known = {}
    exec(code.replace("photo.jpg", "photo.png"), known)
    if document == "README.md":  # it ends with the detector
        import mediapipe

        with known["detector"] as detector:
            print(detector.detect(mediapipe.Image.create_from_file("photo.png")).detections)
    said = capsys.readouterr().out
    found = re.findall(r"category_name='(\w+)'", said)
    assert sorted(found) == sorted(CLASSES[label] for label in labels) and len(found)
