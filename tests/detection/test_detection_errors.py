from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from detected import INFO, Pair, prediction_of, random_data, sample_of, with_other_classes
from mtframe_detection.average_precision import CocoAP
from mtframe_detection.coco_matching import Matched, match_image
from mtframe_detection.confusion import add_confusions
from mtframe_detection.tide import TYPES, Errors, analyse, judge

CAT, DOG, BIRD = range(3)
# A cat and a dog, and a dog that is found, last of all.
SCENE = sample_of(0, [[0, 0, 100, 100], [200, 0, 300, 100]], [CAT, DOG])
FOUND_DOG = ([200, 0, 300, 100], 0.5, DOG)


def matched(pairs: list[Pair], max_detections: int = 10**9) -> list[Matched]:
    return [
        match_image({name: tensor.double().numpy() for name, tensor in found.items()}, sample.target, max_detections)
        for found, sample in pairs
    ]


def analysed(images: list[Matched]) -> Errors:
    return analyse([judge(image) for image in images], len(INFO.classes))


def confusion(images: list[Matched], threshold: float) -> np.ndarray:
    counts = np.zeros((len(INFO.classes) + 1,) * 2, dtype=np.int64)
    for image in images:
        add_confusions(counts, image, threshold)
    return counts


def errors_of(*detections: tuple[list[float], float, int], sample: Any = SCENE) -> Errors:
    boxes, scores, labels = (list(column) for column in zip(*detections, strict=True)) if detections else ([], [], [])
    return analysed(matched([(prediction_of(boxes, scores, labels), sample)]))


@pytest.mark.parametrize(
    ("detection", "ap50", "counts", "costs"),
    [
        # Taken for a dog: precision of dogs is 1/2. As a cat it gives both classes AP 1.
        (([0, 0, 100, 100], 0.9, DOG), 0.25, {"classification": 1},
         {"classification": 0.75, "false positives": 0.25, "false negatives": 0.5}),
        # IoU 0.4 with the cat, which therefore is not missed.
        (([0, 0, 100, 40], 0.9, CAT), 0.5, {"localisation": 1}, {"localisation": 0.5}),
        # Both: nothing says what it should have been, so it goes, and the cat is missed.
        (([0, 0, 100, 40], 0.9, DOG), 0.25, {"both": 1, "missed": 1},
         {"both": 0.25, "missed": 0.5, "false positives": 0.25, "false negatives": 0.5}),
        (([0, 0, 100, 9], 0.9, DOG), 0.25, {"background": 1, "missed": 1},
         {"background": 0.25, "missed": 0.5, "false positives": 0.25, "false negatives": 0.5}),
        # The later of two on one dog.
        (([200, 0, 300, 90], 0.4, DOG), 0.5, {"duplicate": 1, "missed": 1}, {"missed": 0.5, "false negatives": 0.5}),
        # Another class of which there is no object costs nothing.
        (([0, 200, 50, 250], 0.9, BIRD), 0.5, {"background": 1, "missed": 1}, {"missed": 0.5, "false negatives": 0.5}),
    ],
)  # fmt: skip
def test_one_error_of_each_type(detection: Any, ap50: float, counts: dict[str, int], costs: dict[str, float]) -> None:
    result = errors_of(detection, FOUND_DOG)
    assert result.ap50 == pytest.approx(ap50)
    assert result.counts == dict.fromkeys(TYPES, 0) | counts
    assert result.costs == pytest.approx(dict.fromkeys((*TYPES, "false positives", "false negatives"), 0) | costs)


def test_a_wrong_place_comes_before_a_wrong_class() -> None:
    # On the cat but for a little, with IoU 0.27 of the dog beside it.
    sample = sample_of(0, [[0, 0, 100, 100], [60, 0, 160, 100]], [CAT, DOG])
    result = errors_of(([10, 0, 100, 100], 0.9, DOG), sample=sample)
    assert result.counts == dict.fromkeys(TYPES, 0) | {"localisation": 1, "missed": 1}


def test_of_two_that_would_become_one_object_the_first_does() -> None:
    result = errors_of(([0, 0, 100, 40], 0.9, CAT), ([0, 0, 100, 100], 0.8, DOG), FOUND_DOG)
    assert (result.counts["classification"], result.counts["localisation"]) == (1, 1)
    assert result.ap50 == pytest.approx(0.25)
    # The second is only taken away: dogs get AP 1, cats stay at 0.
    assert result.costs["classification"] == pytest.approx(0.25)
    assert result.costs["localisation"] == pytest.approx(0.5)


def test_nothing_found_is_all_missed() -> None:
    result = errors_of()
    assert result.ap50 == 0
    assert result.costs["missed"] == result.costs["false negatives"] == 1
    assert result.counts == dict.fromkeys(TYPES, 0) | {"missed": 2}


def test_what_lies_in_a_crowd_is_no_error() -> None:
    sample = sample_of(0, [[0, 0, 100, 100], [100, 100, 300, 300]], [CAT, CAT], [False, True])
    result = errors_of(([120, 120, 150, 150], 0.9, CAT), ([0, 0, 100, 100], 0.8, CAT), sample=sample)
    assert result.ap50 == pytest.approx(1)
    assert set(result.counts.values()) == {0}
    # A crowd of cats excuses no dog.
    dog = errors_of(([120, 120, 150, 150], 0.9, DOG), ([0, 0, 100, 100], 0.8, CAT), sample=sample)
    assert dog.counts["background"] == 1


def test_images_without_objects_have_background_alone() -> None:
    result = errors_of(([0, 0, 9, 9], 0.9, CAT), sample=sample_of(0, [], []))
    assert result.counts == dict.fromkeys(TYPES, 0) | {"background": 1}
    assert np.isnan([result.ap50, *result.costs.values()]).all()
    assert np.isnan(analysed([]).ap50)


# tidecv 1.0.1 on the same pairs, in parts of 1. Its 101 recalls were set to COCO's own (np.linspace): the last bit of a
# hundredth decides which precision stands at it.
TIDECV = [
    (0, 0.1739657176423771,
     (0.10120670275782598, 0.0266622223410155, 0.012661211814862412, 0.003963878308127491, 0.10978156027417882,
      0.07595042976765494, 0.3573874176711543, 0.1515274212982391), (89, 29, 39, 27, 220, 74)),
    (1, 0.17394693597096036,
     (0.11265259122898882, 0.017327665165856664, 0.007815779441707455, 0.004011459865681352, 0.12138040978595928,
      0.06731119664856128, 0.3673071894415809, 0.13698961178550487), (87, 17, 18, 26, 255, 64)),
    (2, 0.16180357526154565,
     (0.09813821411746876, 0.042160551775883764, 0.020164510033538967, 0.0027428639793326327, 0.09060051480850802,
      0.06484699001661752, 0.34644724982096264, 0.15414013480690059), (85, 36, 56, 21, 196, 76)),
]  # fmt: skip


@pytest.mark.parametrize(("seed", "ap50", "costs", "counts"), TIDECV)
def test_is_what_the_authors_code_says(
    seed: int, ap50: float, costs: tuple[float, ...], counts: tuple[int, ...]
) -> None:
    pairs = with_other_classes(random_data(seed, images=40), every=3)
    for _, sample in pairs:
        # Their code counts detections in crowds among the errors.
        sample.target["crowd"][:] = False
    result = analysed(matched(pairs))
    assert result.ap50 == pytest.approx(ap50, abs=1e-12)
    assert tuple(result.costs.values()) == pytest.approx(costs, abs=1e-12)
    assert tuple(result.counts.values()) == counts


@pytest.mark.parametrize("seed", range(4))
def test_begins_with_cocos_ap50(seed: int) -> None:
    # With crowds, and on one image more detections of a class than count.
    pairs = with_other_classes(random_data(seed), every=6)
    pairs[0][0]["labels"][:120] = CAT
    metric = CocoAP(INFO)
    metric.update([prediction for prediction, _ in pairs], [sample for _, sample in pairs])
    assert analysed(matched(pairs, 100)).ap50 == pytest.approx(metric.compute()["AP50"], abs=1e-12)


def test_only_the_best_of_a_class_count() -> None:
    found = prediction_of([[0, 0, 9, 9]] * 5, [0.1, 0.5, 0.3, 0.9, 0.7], [CAT, CAT, DOG, DOG, CAT])
    (image,) = matched([(found, sample_of(0, [], []))], max_detections=2)
    assert (image.scores.tolist(), image.labels.tolist()) == ([0.9, 0.7, 0.5, 0.3], [DOG, CAT, CAT, DOG])


def test_confusions_by_hand() -> None:
    sample = sample_of(
        0, [[0, 0, 100, 100], [200, 0, 300, 100], [0, 200, 100, 300], [200, 200, 300, 300]],
        [CAT, DOG, CAT, BIRD], [False, False, False, True],
    )  # fmt: skip
    found = prediction_of(
        [[0, 0, 100, 90], [0, 200, 100, 290], [350, 0, 390, 40], [210, 210, 250, 250], [0, 200, 100, 300]],
        [0.9, 0.8, 0.7, 0.6, 0.2],
        [CAT, DOG, BIRD, BIRD, CAT],
    )
    images = matched([(found, sample)])
    # Rows: a cat is found and one taken for a dog, the dog is missed, a bird is where nothing is. The crowd is neither.
    assert confusion(images, 0.3).tolist() == [[1, 1, 0, 0], [0, 0, 0, 1], [0, 0, 0, 0], [0, 0, 1, 0]]
    # The same class comes first, though with the lower score; the dog then is where no object is left.
    assert confusion(images, 0.1).tolist() == [[2, 0, 0, 0], [0, 0, 0, 1], [0, 0, 0, 0], [0, 1, 1, 0]]


@pytest.mark.parametrize("threshold", [0, 0.3, 0.9, 1])
def test_confusions_count_every_object_and_detection_once(threshold: float) -> None:
    images = matched(with_other_classes(random_data(3), every=4))
    counts = confusion(images, threshold)
    objects = sum(np.bincount(image.objects, minlength=3) for image in images)
    found = sum(
        np.bincount(image.labels[(image.scores >= threshold) & ~image.ignored], minlength=3) for image in images
    )
    assert counts[:-1].sum(axis=1).tolist() == objects.tolist()
    assert counts[:, :-1].sum(axis=0).tolist() == found.tolist()
    assert counts[-1, -1] == 0
