"""Mean IoU against scikit-learn's confusion matrix and Jaccard scores."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, confusion_matrix, jaccard_score

from mtframe.data import DataInfo, Sample
from mtframe.errors import DataError
from mtframe.evaluation import Bars, Matrix
from mtframe_segmentation.mean_iou import MeanIoU

INFO = DataInfo("mask", ("sky", "road", "car", "pole", "tree"))
Pair = tuple[dict[str, Any], Sample]


def pair(index: int, found: np.ndarray, true: np.ndarray) -> Pair:
    tensors = (torch.from_numpy(its.astype(np.uint8)) for its in (found, true))
    prediction, target = ({"mask": its} for its in tensors)
    return prediction, Sample(torch.empty(0), target, true.shape, index)  # type: ignore[arg-type]


def random_pairs(seed: int, images: int = 5) -> list[Pair]:
    """Half of the pixels right, a fifth unknown; there is no tree, and no pole but in predictions."""
    rng = np.random.default_rng(seed)
    pairs = []
    for index in range(images):
        true = rng.integers(0, 3, (20 + index, 30))
        found = np.where(rng.random(true.shape) < 0.5, true, rng.integers(0, 4, true.shape))
        true[rng.random(true.shape) < 0.2] = 255
        pairs.append(pair(index, found, true))
    return pairs


def score(pairs: list[Pair], info: DataInfo = INFO) -> MeanIoU:
    metric = MeanIoU(info)
    metric.update([prediction for prediction, _ in pairs], [sample for _, sample in pairs])
    return metric


def test_it_agrees_with_scikit_learn() -> None:
    pairs = random_pairs(0)
    true, found = (torch.cat([its.flatten() for its in column]).numpy() for column in zip(
        *((sample.target["mask"], prediction["mask"]) for prediction, sample in pairs), strict=True
    ))  # fmt: skip
    true, found = true[true != 255], found[true != 255]
    metric = score(pairs)
    values = metric.compute()
    assert values["pixel_accuracy"] == pytest.approx(accuracy_score(true, found))
    ious = jaccard_score(true, found, labels=range(4), average=None)
    assert values["mIoU"] == pytest.approx(ious.mean())
    bars, matrix = metric.details()
    assert isinstance(bars, Bars)
    assert isinstance(matrix, Matrix)
    assert list(bars.values.values())[:4] == pytest.approx(ious)
    assert math.isnan(bars.values["tree"])
    counts = confusion_matrix(true, found, labels=range(5))
    assert np.array_equal(metric._confusion(), counts)
    assert np.array(matrix.values) == pytest.approx(counts / counts.sum(1, keepdims=True).clip(1), abs=5e-4)


def test_a_worked_example() -> None:
    # Sky: 1 right of 2 in the label, 1 predicted: 1/2. Road: 1 right, 3 in either: 1/3. Unknown pixels do not count.
    metric = score([pair(0, np.array([[0, 1, 1, 2, 2]]), np.array([[0, 0, 1, 1, 255]]))])
    assert metric.compute() == pytest.approx({"mIoU": (1 / 2 + 1 / 3 + 0) / 3, "pixel_accuracy": 0.5})


def test_parts_merge_in_any_order_and_an_image_that_comes_twice_counts_once() -> None:
    pairs = random_pairs(1)
    whole = score(pairs).compute()
    one, other = score(pairs[3:]), score(pairs[:4])
    one.merge(other)
    assert one.compute() == whole
    one.reset()
    with pytest.raises(DataError, match="no image with a known pixel"):
        one.compute()


def test_images_of_which_nothing_is_known_do_not_count() -> None:
    pairs = random_pairs(2)
    unknown = np.full((20, 30), 255)
    nothing = Sample(torch.empty(0), {"mask": torch.empty(0, 0, dtype=torch.uint8)}, (20, 30), 98)
    more = [*pairs, pair(99, np.zeros((20, 30)), unknown), (pairs[0][0], nothing)]
    assert score(more).compute() == score(pairs).compute()


def test_255_classes_are_counted() -> None:
    info = DataInfo("mask", tuple(map(str, range(255))))
    true = np.arange(255).reshape(15, 17)
    assert score([pair(0, true, true)], info).compute() == {"mIoU": 1.0, "pixel_accuracy": 1.0}


def test_what_does_not_fit_is_told() -> None:
    class Split:
        info = DataInfo("mask", ("sky", "rode", "car", "pole", "tree"))

    with pytest.raises(DataError, match=r"mean-iou: .* 5 classes.*number 1 is 'rode' here and 'road' there"):
        MeanIoU(INFO, Split())
    small = pair(7, np.zeros((2, 3)), np.zeros((2, 4)))
    with pytest.raises(DataError, match=r"the prediction for 7 is \(2, 3\), its mask \(2, 4\)"):
        score([small])
