from __future__ import annotations

import json
import math
import shutil
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from detected import INFO, Pair, prediction_of, random_data, reference, sample_of, with_other_classes
from mtframe.data import DataInfo
from mtframe.errors import RecipeError
from mtframe_detection.average_precision import CocoAP
from mtframe_detection.coco import Coco


def score(pairs: list[Pair]) -> dict[str, float]:
    metric = CocoAP(INFO)
    metric.update([prediction for prediction, _ in pairs], [sample for _, sample in pairs])
    return metric.compute()


@pytest.mark.parametrize("seed", range(6))
def test_all_twelve_numbers_are_pycocotools(seed: int) -> None:
    pairs = random_data(seed)
    assert list(score(pairs).values()) == pytest.approx(reference(pairs).tolist(), abs=1e-9, nan_ok=True)


@pytest.mark.parametrize("factor", [1 / 30, 1 / 300])
def test_tiny_objects_are_pycocotools_too(factor: float) -> None:
    # A few pixels, and parts of one.
    pairs = random_data(7)
    for prediction, sample in pairs:
        prediction["boxes"] *= factor
        sample.target["boxes"] *= factor
        sample.target["area"] *= factor**2
    assert list(score(pairs).values()) == pytest.approx(reference(pairs).tolist(), abs=1e-9, nan_ok=True)


def test_by_hand() -> None:
    # Two cats; the stronger detection fits one exactly, the weaker overlaps the other with IoU 0.6.
    sample = sample_of(0, [[0, 0, 100, 100], [200, 0, 300, 100]], [0, 0])
    found = prediction_of([[0, 0, 100, 100], [200, 0, 260, 100]], [0.9, 0.8], [0, 0])
    values = score([(found, sample)])
    assert values["AP50"] == pytest.approx(1)
    # One of two found, first: precision 1 up to recall 0.5, which 51 of 101 recall points reach.
    assert values["AP75"] == pytest.approx(51 / 101)
    assert values["AP"] == pytest.approx((3 * 1 + 7 * 51 / 101) / 10)
    assert values["AR1"] == pytest.approx(0.5)
    assert values["AR100"] == pytest.approx((3 * 1 + 7 * 0.5) / 10)
    assert math.isnan(values["APs"])
    assert values["APl"] == values["AP"]
    assert CocoAP.primary == "AP"
    assert CocoAP.higher_is_better


def test_nothing_found_is_zero_and_nothing_there_is_undefined() -> None:
    nothing = prediction_of([], [], [])
    values = score([(nothing, sample_of(0, [[0, 0, 100, 100]], [0]))])
    assert values["AP"] == values["AR100"] == values["APl"] == 0
    assert math.isnan(values["APm"])
    empty = score([(prediction_of([[0, 0, 9, 9]], [0.5], [1]), sample_of(0, [], []))])
    assert all(math.isnan(value) for value in empty.values())
    assert all(math.isnan(value) for value in CocoAP(INFO).compute().values())


def test_what_lies_in_a_crowd_is_not_wrong() -> None:
    sample = sample_of(0, [[0, 0, 50, 50], [100, 100, 300, 300]], [0, 0], [False, True])
    found = prediction_of([[120, 120, 180, 180], [0, 0, 50, 50]], [0.9, 0.8], [0, 0])
    assert score([(found, sample)])["AP"] == pytest.approx(1)


def details_of(metric: CocoAP) -> dict[str, Any]:
    return {detail.name: detail for detail in metric.details()}


def test_details_agree_with_the_numbers() -> None:
    pairs = with_other_classes(random_data(4), every=5)
    metric = CocoAP(INFO)
    metric.update([prediction for prediction, _ in pairs], [sample for _, sample in pairs])
    details, values = details_of(metric), metric.compute()
    assert list(details) == ["per-class-ap", "per-class-ap50", "precision-recall", "confusion", "ap50-lost", "errors"]
    for name, value in (("per-class-ap", "AP"), ("per-class-ap50", "AP50")):
        assert list(details[name].values) == list(INFO.classes)
        assert np.mean(list(details[name].values.values())) == pytest.approx(values[value])
    lines = details["precision-recall"].lines
    assert list(lines) == ["mean of classes", *INFO.classes]
    assert np.mean(lines["mean of classes"][1]) == pytest.approx(values["AP50"])
    assert np.mean(lines["cat"][1]) == pytest.approx(details["per-class-ap50"].values["cat"])
    assert lines["cat"][0] == pytest.approx([n / 100 for n in range(101)])
    assert details["confusion"].row_labels == details["confusion"].column_labels == (*INFO.classes, "background")
    assert values["AP50"] + details["ap50-lost"].values["false positives"] <= 1
    assert metric.details() == list(details.values())


def test_details_of_classes_without_objects_and_of_nothing() -> None:
    metric = CocoAP(INFO)
    metric.update([prediction_of([[0, 0, 9, 9]], [0.5], [1])], [sample_of(0, [], [])])
    details = details_of(metric)
    assert list(details) == ["per-class-ap", "per-class-ap50", "confusion", "ap50-lost", "errors"]
    assert all(math.isnan(value) for value in details["per-class-ap"].values.values())
    assert details["confusion"].values == [[0] * 4, [0] * 4, [0] * 4, [0, 1, 0, 0]]
    assert details["errors"].values["background"] == 1
    metric.update([prediction_of([[0, 0, 9, 9]], [0.5], [2])], [sample_of(1, [[0, 0, 9, 9]], [2])])
    details = details_of(metric)
    assert details["per-class-ap"].values == pytest.approx({"cat": math.nan, "dog": math.nan, "bird": 1}, nan_ok=True)
    assert list(details["precision-recall"].lines) == ["mean of classes", "bird"]
    assert sum(map(sum, details_of(CocoAP(INFO))["confusion"].values)) == 0


def test_curves_of_many_classes_are_their_mean() -> None:
    many = DataInfo("boxes", tuple(f"class {n}" for n in range(11)))
    metric = CocoAP(many)
    boxes = [[20 * n, 0, 20 * n + 10, 10] for n in range(11)]
    metric.update([prediction_of(boxes, [0.9] * 11, range(11))], [sample_of(0, boxes, list(range(11)))])
    assert list(details_of(metric)["precision-recall"].lines) == ["mean of classes"]


def test_1500_objects_of_one_pixel_on_an_image() -> None:
    boxes = [[2 * (n % 50), 2 * (n // 50), 2 * (n % 50) + 1, 2 * (n // 50) + 1] for n in range(1500)]
    pair = prediction_of(boxes, np.linspace(1, 0.5, 1500), [0] * 1500), sample_of(0, boxes, [0] * 1500)
    assert score([pair])["AR100"] == pytest.approx(100 / 1500)
    metric = CocoAP(INFO, max_detections=1500)
    metric.update([pair[0]], [pair[1]])
    values, details = metric.compute(), details_of(metric)
    assert values["AP"] == values["APs"] == values["AR1500"] == pytest.approx(1)
    assert "AR100" not in values
    assert details["confusion"].values[0][0] == 1500
    assert set(details["errors"].values.values()) == {0}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_detections": 99}, "max_detections: must be 100, which is COCO's, or more, got 99"),
        ({"score_threshold": 1.5}, "score_threshold: must be between 0 and 1, got 1.5"),
        ({"score_threshold": math.nan}, "score_threshold: must be between 0 and 1, got nan"),
    ],
)
def test_options_out_of_range(options: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        CocoAP(INFO, **options)


def test_order_repeats_and_merging_change_nothing() -> None:
    pairs = random_data(0)
    expected = score(pairs)
    first, second = CocoAP(INFO), CocoAP(INFO)
    first.update([prediction for prediction, _ in pairs[7:]], [sample for _, sample in pairs[7:]])
    second.update([prediction for prediction, _ in pairs[:8]], [sample for _, sample in pairs[:8]])
    first.merge(second)
    assert first.compute() == pytest.approx(expected, nan_ok=True)
    whole = CocoAP(INFO)
    whole.update([prediction for prediction, _ in pairs], [sample for _, sample in pairs])
    assert first.details() == whole.details()
    first.reset()
    assert math.isnan(first.compute()["AP"])


def test_prints_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    score(random_data(1))
    captured = capfd.readouterr()
    assert captured.out == captured.err == ""


def test_the_well_known_results_of_coco(shared_data: Path, tmp_path: Path) -> None:
    (tmp_path / "val2017").mkdir()
    folder = shared_data / "coco_eval"
    shutil.copy(folder / "instances_val2014_100.json", tmp_path / "truth.json")
    data = Coco("val", root=tmp_path, annotations="truth.json")
    found: dict[int, list[dict[str, Any]]] = {}
    for result in json.loads((folder / "instances_val2014_fakebbox100_results.json").read_text(encoding="utf-8")):
        found.setdefault(result["image_id"], []).append(result)
    metric = CocoAP(data.info)
    for index in range(len(data)):
        sample = data.annotated(index)
        results = found.get(int(sample.target["image_id"]), [])
        boxes = [[x, y, x + w, y + h] for x, y, w, h in (result["bbox"] for result in results)]
        labels = [data.category_ids.index(result["category_id"]) for result in results]
        metric.update([prediction_of(boxes, [result["score"] for result in results], labels)], [sample])
    assert {name: f"{value:.3f}" for name, value in metric.compute().items()} == {
        "AP": "0.505", "AP50": "0.697", "AP75": "0.573", "APs": "0.586", "APm": "0.519", "APl": "0.501",
        "AR1": "0.387", "AR10": "0.594", "AR100": "0.595", "ARs": "0.640", "ARm": "0.566", "ARl": "0.564",
    }  # fmt: skip
    details = {detail.name: detail for detail in metric.details()}
    # tidecv 1.0.1 on the same files: a class taken for another is what costs most.
    assert list(details["errors"].values.values()) == [83, 1, 0, 1, 0, 97]
    assert details["ap50-lost"].values["classification"] == pytest.approx(0.1675, abs=2e-4)
    assert details["ap50-lost"].values["localisation"] == pytest.approx(0.0025, abs=1e-4)


@pytest.mark.parametrize("without", ["area", None])
def test_objects_without_an_area_of_their_own_have_that_of_their_box(without: str | None) -> None:
    sample = sample_of(0, [[0, 0, 50, 50]], [0], area=[2500])
    sample.target.pop(without, None)
    metric = CocoAP(INFO)
    metric.update([prediction_of([[0, 0, 50, 50]], [0.9], [0])], [sample])
    values = metric.compute()
    assert values["APm"] == pytest.approx(1)
    assert {name for name, value in values.items() if math.isnan(value)} == set(metric.gaps())


def test_memory_of_a_class_is_little_more_than_its_boxes() -> None:
    # 20,000 detections of one class: about 100 bytes each, beside the images' own arrays. The evaluator of the
    # reference took 1,700.
    rng = np.random.default_rng(0)
    pairs = []
    for index in range(200):
        corner = rng.uniform(0, 300, (100, 2))
        boxes = np.concatenate([corner, corner + 60], axis=1)
        pairs.append((prediction_of(boxes, rng.random(100), [0] * 100), sample_of(index, boxes[:7], [0] * 7)))
    metric = CocoAP(INFO)
    metric.update([prediction for prediction, _ in pairs], [sample for _, sample in pairs])
    tracemalloc.start()
    metric.compute()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20_000 * 200
