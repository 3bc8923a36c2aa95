from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses import FakeTensorMode

from mtframe.data import DataInfo
from mtframe.errors import RecipeError
from mtframe.kinds import FeatureSpec
from mtframe_detection.atss import assign
from mtframe_detection.box_geometry import distances_to_boxes, grid_points
from mtframe_detection.dense import DenseHead
from mtframe_detection.losses import CrossEntropyIoULoss, DetectionLoss, quality_focal_loss

STRIDES = (8, 16)
HEAD = DenseHead((FeatureSpec("c3", 8, 8),), DataInfo("boxes", ("a", "b", "c")), width=8, depth=0, strides=STRIDES)


def outputs_for(images: int, classes: int, seed: int = 0, size: int = 64) -> dict[str, Tensor]:
    points = grid_points([(size // stride, size // stride) for stride in STRIDES], STRIDES, torch.device("cpu"))
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(images, len(points), classes, generator=generator).requires_grad_()
    distances = (torch.rand(images, len(points), 4, generator=generator) * 20).requires_grad_()
    return {
        "logits": logits, "distances": distances, "points": points,
        "boxes": distances_to_boxes(points[:, :2], distances),
    }  # fmt: skip


def targets_of(*images: list[list[float]], ignore: list[list[list[float]]] | None = None) -> dict[str, Tensor]:
    """Boxes [x1, y1, x2, y2, label] and regions to ignore, an image each."""

    def padded(lists: Any, width: int) -> tuple[Tensor, Tensor]:
        most = max(len(rows) for rows in lists)
        values, mask = torch.zeros(len(lists), most, width), torch.zeros(len(lists), most, dtype=torch.bool)
        for image, rows in enumerate(lists):
            for place, row in enumerate(rows):
                values[image, place], mask[image, place] = torch.tensor(row, dtype=torch.float32), True
        return values, mask

    boxes, valid = padded(images, 5)
    regions, ignore_valid = padded(ignore or [[] for _ in images], 4)
    return {
        "boxes": boxes[..., :4], "labels": boxes[..., 4].long(), "valid": valid,
        "ignore": regions, "ignore_valid": ignore_valid,
    }  # fmt: skip


def test_quality_focal_loss_by_hand() -> None:
    logits, quality = torch.tensor([0.0, 0.0, math.log(3)]), torch.tensor([0.0, 0.8, 0.75])
    loss = quality_focal_loss(logits, quality, 2.0)
    # Score 0.5 towards 0: 0.5² · -ln 0.5; towards 0.8: 0.3² · -ln 0.5. Score 0.75 is what is wanted: nothing.
    assert loss.tolist() == pytest.approx([0.25 * math.log(2), 0.09 * math.log(2), 0.0], abs=1e-6)


def test_the_loss_of_a_perfect_detector_is_next_to_nothing() -> None:
    target = targets_of([[6, 6, 50, 46, 1]])
    outputs = outputs_for(1, 3)
    positive = assign(outputs["points"], target["boxes"], target["valid"], STRIDES)[0] >= 0
    logits = torch.full((1, len(positive), 3), -20.0)
    logits[0, positive, 1] = 20.0
    boxes = outputs["boxes"].detach().clone()
    boxes[0, positive] = target["boxes"][0, 0]
    losses = DetectionLoss(HEAD)({"logits": logits, "boxes": boxes, "points": outputs["points"]}, target)
    assert losses["score"].item() == pytest.approx(0, abs=1e-5)
    assert losses["box"].item() == pytest.approx(0, abs=1e-5)


def test_is_the_mean_over_positive_points_of_the_whole_batch() -> None:
    rows = [[6.2, 6.1, 50.3, 46.7, 1], [30.4, 20.2, 60.1, 60.9, 0]]
    one, two = outputs_for(1, 3, seed=1), outputs_for(1, 3, seed=2)
    both = {name: torch.cat([one[name], two[name]]) for name in ("logits", "boxes")} | {"points": one["points"]}
    loss = DetectionLoss(HEAD, beta=1.5, box_weight=3)
    singles, numbers = [], []
    for outputs, row in ((one, rows[:1]), (two, rows)):
        target = targets_of(row)
        singles.append(loss(outputs, target))
        numbers.append(int((assign(outputs["points"], target["boxes"], target["valid"], STRIDES) >= 0).sum()))
    together = loss(both, targets_of(rows[:1], rows))
    for name in ("score", "box"):
        expected = sum(single[name] * number for single, number in zip(singles, numbers, strict=True)) / sum(numbers)
        torch.testing.assert_close(together[name], expected)


def test_points_in_crowds_are_not_punished_unless_they_own_a_box() -> None:
    outputs = outputs_for(1, 3)
    rows = [[6.0, 6.0, 30.0, 30.0, 1]]
    full = [[[0.0, 0.0, 64.0, 64.0]]]
    loss = DetectionLoss(HEAD)
    plain, ignored = loss(outputs, targets_of(rows)), loss(outputs, targets_of(rows, ignore=full))
    assert 0 < ignored["score"] < plain["score"]
    assert ignored["box"] == plain["box"]
    gradient = torch.autograd.grad(ignored["score"], outputs["logits"])[0]
    target = targets_of(rows)
    positive = assign(outputs["points"], target["boxes"], target["valid"], STRIDES) >= 0
    assert (gradient[positive] != 0).all()
    assert (gradient[~positive] == 0).all()


@pytest.mark.parametrize("box", ["iou", "giou", "diou", "ciou"])
@pytest.mark.parametrize("images", [[[], []], [[], [[6.0, 6.0, 30.0, 30.0, 1]]]])
def test_finite_and_differentiable_without_targets(box: Any, images: Any) -> None:
    outputs = outputs_for(2, 3)
    losses = DetectionLoss(HEAD, box=box)(outputs, targets_of(*images))
    assert set(losses) == {"score", "box"}
    (losses["score"] + losses["box"]).backward()
    for name in ("logits", "distances"):
        gradient = outputs[name].grad
        assert gradient is not None
        assert gradient.isfinite().all()
    assert losses["score"] > 0
    assert (losses["box"] > 0) == any(images)


def test_computes_in_single_precision_from_half() -> None:
    outputs, target = outputs_for(1, 3), targets_of([[6.0, 6.0, 30.0, 30.0, 1]])
    half = {name: value.detach().bfloat16() for name, value in outputs.items() if name == "logits"}
    losses = DetectionLoss(HEAD)({**outputs, **half}, target)
    assert losses["score"].dtype == losses["box"].dtype == torch.float32
    assert losses["score"].item() == pytest.approx(DetectionLoss(HEAD)(outputs, target)["score"].item(), rel=0.02)


@pytest.mark.parametrize(("scale", "levels"), [(8.0, {8.0}), (2.0, {16.0, 32.0})])
def test_boxes_are_assigned_by_the_anchors_of_the_head(scale: float, levels: set[float]) -> None:
    head = DenseHead((FeatureSpec("c3", 8, 8),), DataInfo("boxes", ("a",)), strides=(8, 16, 32), anchor_scale=scale)
    points = grid_points([(8, 8), (4, 4), (2, 2)], head.strides, torch.device("cpu"))
    boxes = torch.cat([points[:, :2] - 3, points[:, :2] + 3], dim=1)[None].requires_grad_()
    logits, target = torch.zeros(1, len(points), 1), targets_of([[6, 6, 50, 46, 0]])
    DetectionLoss(head, box="iou")({"logits": logits, "boxes": boxes, "points": points}, target)["box"].backward()
    assert boxes.grad is not None
    owner = assign(points, target["boxes"], target["valid"], head.strides, anchor_scale=scale)
    assert torch.equal(boxes.grad.abs().sum(-1) > 0, owner >= 0)
    assert set(points[owner[0] >= 0, 2].tolist()) == levels


def test_shapes_do_not_depend_on_what_is_in_the_tensors() -> None:
    """Fake tensors have shapes and no values: whatever needs a value to go on raises."""
    outputs, target = outputs_for(2, 3), targets_of([[6, 6, 50, 46, 1]], [], ignore=[[], [[0, 0, 9, 9]]])
    outputs = {name: value.detach() for name, value in outputs.items()}
    with FakeTensorMode() as mode:
        fake = [{name: mode.from_tensor(value) for name, value in part.items()} for part in (outputs, target)]
        losses = DetectionLoss(HEAD)(*fake)
    assert {name: value.shape for name, value in losses.items()} == {"score": (), "box": ()}


@pytest.mark.parametrize(("option", "value", "wanted"), [
    ("box_weight", -1, "must not be negative, got -1"),
    ("beta", 0.5, "must be 0, or 1 or more, got 0.5"),
    ("beta", -1, "must be 0, or 1 or more, got -1"),
])  # fmt: skip
def test_wrong_options(option: str, value: float, wanted: str) -> None:
    with pytest.raises(RecipeError, match=f"{option} {wanted}"):
        DetectionLoss(HEAD, **{option: value})


def test_cross_entropy_and_iou_by_hand() -> None:
    # Level 8 of 16 x 16 pixels has four points; the box is the cell of the first and belongs to it alone.
    target = targets_of([[0, 0, 8, 8, 1]])
    points = grid_points([(2, 2)], (8,), torch.device("cpu"))
    assert (assign(points, target["boxes"], target["valid"], (8,)) >= 0).tolist() == [[True, False, False, False]]
    logits = torch.zeros(1, 4, 2)
    logits[0, 0, 1] = math.log(2)
    boxes = torch.tensor([[[0.0, 0, 8, 6]] * 4])
    loss = CrossEntropyIoULoss(DenseHead((FeatureSpec("c3", 8, 8),), DataInfo("boxes", ("a", "b")), strides=(8,)))
    losses = loss({"logits": logits, "boxes": boxes, "points": points}, target)
    # Odds of background : a : b are 1 : 1 : 2 where the box is, b being wanted, and 1 : 1 : 1 elsewhere.
    assert losses["cross_entropy"].item() == pytest.approx(math.log(2) + 3 * math.log(3))
    assert losses["box"].item() == pytest.approx(2 * (1 - 0.75))


def test_cross_entropy_leaves_crowds_alone_unless_their_points_own_a_box() -> None:
    outputs, rows = outputs_for(1, 3), [[6.0, 6.0, 30.0, 30.0, 1]]
    target = targets_of(rows, ignore=[[[0.0, 0.0, 64.0, 64.0]]])
    losses = CrossEntropyIoULoss(HEAD)(outputs, target)
    gradient = torch.autograd.grad(losses["cross_entropy"], outputs["logits"])[0]
    positive = assign(outputs["points"], target["boxes"], target["valid"], STRIDES) >= 0
    assert (gradient[positive] != 0).all()
    assert (gradient[~positive] == 0).all()


def test_a_negative_weight_of_the_iou() -> None:
    with pytest.raises(RecipeError, match="cross-entropy-iou loss: box_weight must not be negative, got -1"):
        CrossEntropyIoULoss(HEAD, box_weight=-1)
