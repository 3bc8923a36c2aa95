from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchvision.ops import box_iou

from mtframe.data import DataInfo
from mtframe.errors import RecipeError
from mtframe.kinds import FeatureSpec
from mtframe_detection.dense import DenseHead
from mtframe_detection.rfcn import RFCNHead
from mtframe_detection.suppression import Suppression


def detections(number: int, seed: int, classes: int = 2) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(number, 2, generator=generator) * 60
    boxes = torch.cat([corner, corner + 5 + torch.rand(number, 2, generator=generator) * 60], dim=1)
    # All different, so that there is one order.
    scores = (torch.randperm(number, generator=generator) + 1) / (number + 1)
    return boxes, scores, torch.randint(classes, (number,), generator=generator)


def plain(boxes: Tensor, scores: Tensor, labels: Tensor, kind: str, iou: float, least: float) -> list[Any]:
    """The algorithms of arXiv:1704.04503, figure 2, box by box: (index, score), strongest first."""
    overlap, left, found = box_iou(boxes, boxes).tolist(), dict(enumerate(scores.tolist())), []
    while left:
        best = max(left, key=lambda index: left[index])
        score = left.pop(best)
        if score >= least:
            found.append((best, score))
        for other in list(left):
            value = overlap[best][other] if kind == "class-agnostic" or labels[best] == labels[other] else 0.0
            if kind == "soft-gaussian":
                left[other] *= math.exp(-(value**2) / 0.5)
            elif value > iou:
                left[other] *= 1 - value if kind == "soft-linear" else 0.0
                if kind != "soft-linear":
                    del left[other]
    return found


@pytest.mark.parametrize("kind", ["per-class", "class-agnostic", "soft-linear", "soft-gaussian"])
@settings(max_examples=25, deadline=None)
@given(
    number=st.integers(0, 40), seed=st.integers(0, 10**6), iou=st.sampled_from([0.0, 0.3, 0.6]), most=st.integers(1, 50)
)
def test_agrees_with_the_algorithm_box_by_box(kind: Any, number: int, seed: int, iou: float, most: int) -> None:
    boxes, scores, labels = detections(number, seed)
    suppression = Suppression(nms=kind, nms_iou=iou, score_threshold=0.1, max_detections=most)
    found = suppression(boxes, scores, labels)
    expected = plain(boxes, scores, labels, kind, iou, 0.1)[:most]
    indices = [index for index, _ in expected]
    torch.testing.assert_close(found["scores"], torch.tensor([score for _, score in expected]))
    assert torch.equal(found["boxes"], boxes[indices])
    assert torch.equal(found["labels"], labels[indices])


def test_kinds_by_hand() -> None:
    # The second overlaps the first by 0.8 (IoU), with another class; so does the third, with the same.
    boxes = torch.tensor([[0.0, 0, 10, 10], [0.0, 0, 10, 8], [0.0, 0, 8, 10]])
    scores, labels = torch.tensor([0.9, 0.8, 0.7]), torch.tensor([0, 1, 0])

    def found(nms: Any) -> list[tuple[int, float]]:
        made = Suppression(nms=nms, nms_iou=0.5, score_threshold=0.1)(boxes, scores, labels)
        pairs = zip(made["labels"].tolist(), made["scores"].tolist(), strict=True)
        return [(label, round(score, 4)) for label, score in pairs]

    assert found("per-class") == [(0, 0.9), (1, 0.8)]
    assert found("class-agnostic") == [(0, 0.9)]
    assert found("soft-linear") == [(0, 0.9), (1, 0.8), (0, 0.14)]
    assert found("soft-gaussian") == [(0, 0.9), (1, 0.8), (0, round(0.7 * math.exp(-1.28), 4))]


def test_scores_given_are_left_as_they_are() -> None:
    boxes, scores, labels = detections(20, 0)
    before = scores.clone()
    Suppression(nms="soft-gaussian")(boxes, scores, labels)
    assert torch.equal(scores, before)


@pytest.mark.parametrize("kind", ["per-class", "class-agnostic", "soft-linear", "soft-gaussian"])
def test_a_thousand_objects_of_two_thousand_candidates(kind: Any) -> None:
    # A grid of 32 x 40 objects, each found twice.
    x, y = torch.meshgrid(torch.arange(32) * 10.0, torch.arange(40) * 10.0, indexing="ij")
    corner = torch.stack([x.flatten(), y.flatten()], dim=1)
    boxes = torch.cat([torch.cat([corner, corner + 8], dim=1), torch.cat([corner, corner + 7.9], dim=1)])
    scores = torch.cat([torch.linspace(0.9, 0.8, 1280), torch.linspace(0.3, 0.2, 1280)])
    outputs = scores[None, :, None], boxes[None]
    suppression = Suppression(nms=kind, max_detections=1200, pre_nms=2560, nms_iou=0.5)
    (found,) = suppression.detect(*outputs, torch.tensor([[0.0, 0, 320, 400]]))
    assert torch.equal(found["boxes"], boxes[:1200])
    torch.testing.assert_close(found["scores"], scores[:1200])


@pytest.mark.parametrize("head", [DenseHead, RFCNHead])
def test_views_are_put_together_and_suppressed_once_more(head: Any) -> None:
    built = head((FeatureSpec("c3", 8, 8),), DataInfo("boxes", ("a", "b")), width=8, depth=0, max_detections=3)
    # As they are once they are brought back from their views: in pixels of the original.
    plain = {
        "boxes": torch.tensor([[10.0, 10, 50, 50], [100, 100, 120, 120]]),
        "scores": torch.tensor([0.8, 0.3]), "labels": torch.tensor([0, 1]),
    }  # fmt: skip
    mirrored = {
        "boxes": torch.tensor([[11.0, 10, 51, 50], [100.0, 100, 121, 120], [10.0, 10, 50, 50], [200.0, 0, 220, 9]]),
        "scores": torch.tensor([0.6, 0.5, 0.4, 0.1]), "labels": torch.tensor([0, 1, 1, 0]),
    }  # fmt: skip
    merged = built.merge_views([plain, mirrored])
    assert merged["boxes"].tolist() == [[10, 10, 50, 50], [100, 100, 121, 120], [10, 10, 50, 50]]
    assert merged["scores"].tolist() == pytest.approx([0.8, 0.5, 0.4])
    assert merged["labels"].tolist() == [0, 1, 1]
    nothing = {name: value[:0] for name, value in plain.items()}
    assert {name: value.shape for name, value in built.merge_views([nothing, nothing]).items()} == {
        "boxes": (0, 4), "scores": (0,), "labels": (0,),
    }  # fmt: skip


@pytest.mark.parametrize("name", ["max_detections", "pre_nms"])
def test_numbers_that_are_none(name: str) -> None:
    with pytest.raises(RecipeError, match=f"{name} must be at least 1, got 0"):
        Suppression(**{name: 0})  # type: ignore[arg-type]
