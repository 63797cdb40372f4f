"""Choosing, joining and handing on sets."""

import dataclasses

import numpy as np
import pytest
from needed import needed

from kerasdet.data import Dataset, Sample


def sample(image_id, labels=(), parts=0, ignore=0):
    n = len(labels)
    boxes = np.array([[10 * i, 5, 10 * i + 8, 25] for i in range(n)], np.float32).reshape(-1, 4)
    return Sample(
        path=f"/photos/{image_id}.jpg",
        boxes=boxes,
        labels=np.array(labels, np.int32),
        ignore=np.full((ignore, 4), (1, 2, 4, 8), np.float32),
        parts=np.repeat(boxes[:, None], parts, 1),
        part_weights=np.ones((n, parts), np.float32),
        width=100,
        height=80,
        image_id=image_id,
    )


@pytest.fixture
def pets():
    return Dataset(
        [sample(1, [0, 1, 2, 1]), sample(2), sample(3, [2])], ("cat", "dog", "cow"), name="pets"
    )


def many(n):
    return Dataset([sample(i) for i in range(n)], ("cat",), name="many")


def ids(data):
    return [s.image_id for s in data]


def test_a_sequence_of_samples(pets):
    assert len(pets) == 3 and pets[-1].image_id == 3
    assert ids(pets[1:]) == [2, 3] and isinstance(pets[1:], Dataset)
    assert ids(pets.subset([2, 0])) == [3, 1]
    assert pets.subset([0]).classes == pets.classes
    assert "3 photos, 5 boxes" in repr(pets)
    with pytest.raises(IndexError):
        pets.subset([3])


def test_select_relabels_in_the_order_given(pets):
    chosen = pets.select("cow", "cat")
    assert chosen.classes == ("cow", "cat") and len(chosen) == 3
    assert [s.labels.tolist() for s in chosen] == [[1, 0], [], [0]]
    np.testing.assert_array_equal(chosen[0].boxes, pets[0].boxes[[0, 2]])
    assert len(chosen[0].ignore) == 0
    assert pets[0].labels.tolist() == [0, 1, 2, 1]


def test_select_can_keep_the_others_as_ignore_regions(pets):
    chosen = pets.select("dog", unknown="ignore")
    np.testing.assert_array_equal(chosen[0].ignore, pets[0].boxes[[0, 2]])
    np.testing.assert_array_equal(chosen[2].ignore, pets[2].boxes)


def test_select_keeps_parts_in_step():
    data = Dataset([sample(1, [0, 1], parts=1)], ("man", "child"), ("head",))
    (chosen,) = data.select("child")
    np.testing.assert_array_equal(chosen.parts[:, 0], chosen.boxes)
    assert chosen.part_weights.shape == (1, 1)


def test_known_to_leaves_what_a_detector_finds(pets):
    class Detector:
        classes = ("cow", "horse")

    known = pets.known_to(Detector)
    assert known.classes == ("cow",) and len(known) == len(pets)
    Detector.classes = (*pets.classes, "horse")
    assert pets.known_to(Detector) is pets
    Detector.classes = ("horse",)
    assert pets.known_to(Detector) is None


def test_select_refuses_what_is_not_there(pets):
    with pytest.raises(ValueError, match="pets: there is no class 'cwo'. Did you mean 'cow'?"):
        pets.select("cwo")
    with pytest.raises(ValueError, match="one or more"):
        pets.select()
    with pytest.raises(ValueError, match="'drop' or 'ignore'"):
        pets.select("cat", unknown="keep")


def test_as_one_class(pets):
    animals = pets.as_one_class("animal")
    assert animals.classes == ("animal",)
    assert [s.labels.tolist() for s in animals] == [[0] * 4, [], [0]]


def test_adding_lays_out_parts_and_keeps_ids_apart():
    heads = Dataset([sample(1, [0], parts=1)], ("person",), ("head",), "crowd")
    plain = Dataset([sample(1, [0, 0]), sample(2)], ("person",), name="street")
    for both in (heads + plain, plain + heads):
        assert both.parts == ("head",) and len(both) == 3
        weights = {len(s.boxes): s.part_weights.tolist() for s in both}
        assert weights == {1: [[1.0]], 2: [[0.0], [0.0]], 0: []}
        assert all(s.parts.shape == (len(s.boxes), 1, 4) for s in both)
    assert ids(heads + plain) == [1, "1#2", 2]
    hands = Dataset([sample(9, [0], parts=1)], ("person",), ("hand",))
    assert (heads + hands).parts == ("head", "hand")
    assert (heads + hands)[1].part_weights.tolist() == [[0.0, 1.0]]


def test_a_photo_that_says_nothing_of_parts_has_none_labelled():
    bare = dataclasses.replace(sample(2, [0]), parts=np.zeros((0, 0, 4)), part_weights=np.zeros((0, 0)))
    data = Dataset([sample(1, [0], parts=1), bare], ("person",), ("head",))
    assert data[1].parts.shape == (1, 1, 4) and data[1].part_weights.tolist() == [[0.0]]
    assert data.select("person")[1].parts.shape == (1, 1, 4)


def test_ids_of_copies_are_numbered_through_and_differ_from_all(pets):
    samples = [dataclasses.replace(pets[0], image_id=name) for name in ("a", "a#2", "a", "a")]
    both = Dataset(samples, pets.classes) + Dataset(samples[:1], pets.classes)
    assert [sample.image_id for sample in both] == ["a", "a#2", "a#3", "a#4", "a#5"]


def test_adding_sets_of_different_classes_is_refused(pets):
    with pytest.raises(ValueError, match=r"\('cat', 'dog', 'cow'\), .* \('cat',\).*select"):
        pets + many(2)


def test_repeat_keeps_ids_unique(pets):
    thrice = pets.repeat(3)
    assert ids(thrice) == [1, 2, 3, "1#2", "2#2", "3#2", "1#3", "2#3", "3#3"]
    with pytest.raises(ValueError, match="1 time or more"):
        pets.repeat(0)


def test_photos_of_rare_classes_are_repeated_as_lvis_says():
    """By hand, at t = .4: cats on 16 of 20 photos, 1 time; cows on 4, sqrt(.4 / .2) = 1.41 times."""
    data = Dataset(
        [sample(i, [0, 0]) for i in range(14)] + [sample(i, [1, 0]) for i in (14, 15)]
        + [sample(i, [1, 1]) for i in (16, 17)] + [sample(18), sample(19, ignore=1)],
        ("cat", "cow", "never"), name="farm",
    )
    paths = [[s.path for s in data.repeat_rare(0.4, seed)] for seed in range(400)]
    counts = np.array([[drawn.count(photo.path) for photo in data] for drawn in paths])
    assert (counts[:, :14] == 1).all() and (counts[:, 18:] == 1).all()
    assert set(counts[:, 14:18].ravel()) == {1, 2}
    assert counts[:, 14:18].mean() == pytest.approx(2**0.5, abs=0.04)
    # What 5 % of the photos show comes sqrt(20) = 4.47 times where all classes are to be on all of them.
    one = Dataset([sample(i, [i == 0]) for i in range(20)], ("cat", "cow"))
    assert {sum(s.path.endswith("/0.jpg") for s in one.repeat_rare(1, seed)) for seed in range(30)} == {4, 5}


def test_repeat_rare_keeps_ids_unique_and_is_the_same_every_time(pets):
    often = pets.repeat_rare(1)
    assert often.classes == pets.classes and len(set(ids(often))) == len(often) > len(pets)
    assert ids(pets.repeat_rare(1)) == ids(often)
    assert ids(pets.repeat_rare(0.1)) == ids(pets)
    assert len(Dataset([], ("cat",)).repeat_rare(0.5)) == 0
    for share in (0, -1, 1.5, float("nan")):
        with pytest.raises(ValueError, match="above 0 and at most 1"):
            pets.repeat_rare(share)


def test_split_is_disjoint_complete_and_repeatable():
    data = many(50)
    train, val = data.split(0.9, seed=3)
    assert (len(train), len(val)) == (45, 5)
    assert sorted(ids(train) + ids(val)) == list(range(50))
    assert ids(data.split(0.9, seed=3)[1]) == ids(val)
    assert ids(data.split(0.9, seed=4)[1]) != ids(val)


def test_split_leaves_neither_side_empty():
    assert [len(part) for part in many(2).split(0.99)] == [1, 1]
    with pytest.raises(ValueError, match="cannot split 1 photos"):
        many(1).split(0.5)
    for fraction in (0, 1, 1.5, float("nan")):
        with pytest.raises(ValueError, match="between 0 and 1"):
            many(4).split(fraction)


def test_split_by_scene_keeps_each_scene_on_one_side():
    data = many(60)

    def scene(s):
        return s.image_id // 7

    train, val = data.split(0.7, seed=1, by=scene)
    assert not {scene(s) for s in train} & {scene(s) for s in val}
    assert len(train) + len(val) == 60 and abs(len(train) - 42) <= 7
    with pytest.raises(ValueError, match="cannot split 1 groups"):
        data.split(0.7, by=lambda s: "same")


def test_to_coco_is_what_pycocotools_takes(capsys):
    coco = needed("pycocotools.coco")
    data = Dataset([sample("x", [1], ignore=1), sample("y")], ("cat", "dog"))
    truth = coco.COCO()
    truth.dataset = data.to_coco()
    truth.createIndex()
    assert truth.getImgIds() == [1, 2] and truth.getCatIds() == [1, 2]
    (dog,) = truth.loadAnns(truth.getAnnIds(imgIds=[1], iscrowd=False))
    assert dog["category_id"] == 2 and dog["bbox"] == [0, 5, 8, 20] and dog["area"] == 160
    # Matching is class by class, so an ignore region must be one of every class.
    crowds = truth.loadAnns(truth.getAnnIds(iscrowd=True))
    assert [c["category_id"] for c in crowds] == [1, 2]
    assert all(c["bbox"] == [1, 2, 3, 6] for c in crowds)
    assert 0 not in truth.anns  # pycocotools takes annotation id 0 for "not matched"


def test_copies_of_a_photo_stay_on_one_side_of_a_split():
    data = many(10).repeat(4)
    train, val = data.split(0.8, seed=1)
    assert len(train) == 32 and len(val) == 8
    assert not {sample.path for sample in train} & {sample.path for sample in val}
