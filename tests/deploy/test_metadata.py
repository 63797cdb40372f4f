"""What is written into the file, read back by MediaPipe's own schema classes and by MediaPipe."""

import queue
import zipfile

import numpy as np
import pytest
from discs import CLASSES, photo
from needed import lacking, needed

from kerasdet import deploy
from kerasdet.deploy import flatbuffer, metadata


def test_labels_and_kerasdet_json_stand_behind_the_model(exported):
    path = exported()[0]
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        assert archive.read("labels.txt").decode() == "red\nblue\n"
        assert all(i.compress_type == zipfile.ZIP_STORED for i in archive.infolist())
    about = deploy.read_metadata(path)
    assert about["classes"] == CLASSES and about["parts"] == ("core",)
    assert (about["outputs"], about["resize"], about["image_size"]) == ("detections", "stretch", 96)


def test_the_metadata_is_what_the_public_schema_says(exported):
    schema = needed("mediapipe.tasks.metadata.metadata_schema_py_generated")
    content = flatbuffer.get_metadata(exported()[0].read_bytes(), metadata.KEY)
    assert content[4:8] == b"M001"
    model = schema.ModelMetadataT.InitFromObj(schema.ModelMetadata.GetRootAs(content, 0))
    (graph,) = model.subgraphMetadata
    (image,) = graph.inputTensorMetadata
    assert image.content.contentPropertiesType == schema.ContentProperties.ImageProperties
    assert image.content.contentProperties.colorSpace == schema.ColorSpaceType.RGB
    assert image.content.contentProperties.defaultSize.width == 96
    (unit,) = image.processUnits
    assert unit.optionsType == schema.ProcessUnitOptions.NormalizationOptions
    assert (list(unit.options.mean), list(unit.options.std)) == ([0.0], [1.0])
    names = [t.name.decode() for t in graph.outputTensorMetadata]
    assert names == ["location", "category", "score", "number of detections"]
    location, category = graph.outputTensorMetadata[:2]
    box = location.content.contentProperties
    assert list(box.index) == [1, 0, 3, 2] and box.type == schema.BoundingBoxType.BOUNDARIES
    (labels,) = category.associatedFiles
    assert labels.name == b"labels.txt"
    assert labels.type == schema.AssociatedFileType.TENSOR_VALUE_LABELS
    (group,) = graph.outputTensorGroups
    assert group.name == b"detection_result"
    assert [n.decode() for n in group.tensorNames] == names


def test_normalisation_of_foreign_metadata_is_read(exported, tmp_path):
    """The file as another's: our metadata table stays, kerasdet.json goes."""
    foreign = tmp_path / "foreign.tflite"
    foreign.write_bytes(flatbuffer.write(flatbuffer.read(exported()[0].read_bytes())))
    with zipfile.ZipFile(foreign, "a") as archive:
        archive.writestr("labelmap.txt", "one\ntwo\n")
    about = deploy.read_metadata(foreign)
    assert about == {"classes": ("one", "two"), "normalization": ([0.0], [1.0])}


def test_a_table_named_over_and_over_is_looked_at_a_few_times(exported, monkeypatch):
    """1000 graphs of 1000 images of 1000 steps each, in some kilobytes: each the same table."""
    import flatbuffers
    from flatbuffers import table

    builder = flatbuffers.Builder()
    builder.StartObject(1)
    inner = builder.EndObject()
    for slot in (4, 2, 3):  # steps of an image, images of a graph, graphs of a model
        builder.StartVector(4, 1000, 4)
        for _ in range(1000):
            builder.PrependUOffsetTRelative(inner)
        vector = builder.EndVector()
        builder.StartObject(slot + 1)
        builder.PrependUOffsetTRelativeSlot(slot, vector, 0)
        inner = builder.EndObject()
    builder.Finish(inner, b"M001")
    model = flatbuffer.read(exported()[0].read_bytes())
    flatbuffer.set_metadata(model, metadata.KEY, bytes(builder.Output()))

    class Counted(table.Table):
        made = 0

        def __init__(self, *place):
            super().__init__(*place)
            Counted.made += 1
            assert Counted.made < 100

    monkeypatch.setattr(table, "Table", Counted)
    assert metadata._read_normalization(flatbuffer.write(model)) is None
    assert Counted.made > 10


def object_detector(path, score, mode="IMAGE", callback=None):
    """MediaPipe's ObjectDetector on a file, or a skip that says why."""
    vision = needed("mediapipe.tasks.python.vision")
    from mediapipe.tasks.python import BaseOptions

    options = vision.ObjectDetectorOptions(
        base_options=BaseOptions(model_asset_path=str(path)), score_threshold=score, max_results=-1,
        running_mode=vision.RunningMode[mode], result_callback=callback,
    )
    try:
        return vision.ObjectDetector.create_from_options(options)
    except OSError as error:  # its library is linked against libGLESv2 and libEGL
        lacking(f"MediaPipe cannot load its library ({error}); install libgles2 and libegl1")


@pytest.mark.parametrize("precision", ["float32", "int8"])
@pytest.mark.filterwarnings("ignore:int8 is calibrated on")
def test_mediapipe_finds_the_same_boxes(exported, precision):
    path = exported(precision)[0]
    detector = object_detector(path, 0.3)
    import mediapipe

    runner = deploy.LiteRTDetector(path)
    small = photo(5)[0]
    cases = [small, small[:60], photo(6, scale=4)[0], photo(7, scale=32)[0]]  # up to 3072 px
    for picture in cases:
        picture = np.ascontiguousarray(picture)
        ours = runner.detect(picture)
        image = mediapipe.Image(mediapipe.ImageFormat.SRGB, picture)
        theirs = detector.detect(image).detections
        assert len(ours) == len(theirs) > 0
        theirs = sorted(theirs, key=lambda d: -d.categories[0].score)
        for row, found in enumerate(theirs):
            box = found.bounding_box
            corners = [box.origin_x, box.origin_y, box.origin_x + box.width,
                       box.origin_y + box.height]
            assert np.abs(ours.boxes[row] - corners).max() <= 2
            assert abs(ours.scores[row] - found.categories[0].score) <= 1e-4
            assert ours.names[row] == found.categories[0].category_name
    detector.close()


@pytest.mark.parametrize("mode", ["VIDEO", "LIVE_STREAM"])
def test_mediapipe_finds_the_same_in_films_and_live_streams(exported, mode):
    """What an app on a phone asks for: frames with times, answered at once or by a callback."""
    path = exported()[0]
    answers = queue.Queue()
    callback = (lambda *answer: answers.put(answer)) if mode == "LIVE_STREAM" else None
    one_by_one = object_detector(path, 0.3)
    detector = object_detector(path, 0.3, mode, callback)
    import mediapipe

    with one_by_one, detector:
        for time in (0, 33, 66):
            picture = np.ascontiguousarray(photo(5 + time, scale=4)[0])
            image = mediapipe.Image(mediapipe.ImageFormat.SRGB, picture)
            if callback is None:
                found = detector.detect_for_video(image, time)
            else:
                detector.detect_async(image, time)
                found, frame, when = answers.get(timeout=60)
                assert when == time and np.array_equal(frame.numpy_view(), picture)
            wanted = one_by_one.detect(image).detections
            assert found.detections == wanted and len(wanted) > 0
