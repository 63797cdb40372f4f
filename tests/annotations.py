"""Small sets on disk in the formats that people have, for the tests of their readers."""

import json

from PIL import Image


def photo(path, size=(100, 80), **save):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (90, 120, 150)).save(path, **save)


def coco(folder, annotations, split="train", images=None, categories=None):
    """A COCO file in `folder` for photos a.jpg (id 1) and b.jpg (id 2), and the photos."""
    images = images or [
        {"id": 1, "file_name": "a.jpg", "width": 100, "height": 80},
        {"id": 2, "file_name": "b.jpg", "width": 100, "height": 80},
    ]
    categories = categories or [{"id": 7, "name": "dog"}, {"id": 3, "name": "cat"}]
    for name in ("a.jpg", "b.jpg"):
        photo(folder / "images" / name)
    text = json.dumps({"images": images, "annotations": annotations, "categories": categories})
    (folder / f"instances_{split}.json").write_text(text)
    return folder


def annotation(bbox, image_id=1, category_id=3, **more):
    return {"id": 1, "image_id": image_id, "category_id": category_id, "bbox": bbox} | more


def voc(file, objects, filename="a.jpg", size=True):
    things = "".join(
        f"<object><name>{name}</name><difficult>{difficult}</difficult><bndbox><xmin>{b[0]}</xmin>"
        f"<ymin>{b[1]}</ymin><xmax>{b[2]}</xmax><ymax>{b[3]}</ymax></bndbox></object>"
        for name, b, difficult in objects
    )
    written = "<size><width>100</width><height>80</height></size>" if size else ""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"<annotation><filename>{filename}</filename>{written}{things}</annotation>")
