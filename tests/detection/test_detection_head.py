from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from mtframe.data import DataInfo, Placement
from mtframe.errors import RecipeError
from mtframe.kinds import FeatureSpec
from mtframe_detection.boxes import Boxes
from mtframe_detection.dense import DenseHead
from mtframe_detection.losses import DetectionLoss

INFO = DataInfo("boxes", ("cat", "dog", "bird"))
FEATURES = tuple(FeatureSpec(f"c{n}", 4 * 2**n, 2**n) for n in range(2, 6))


def maps_for(size: int, images: int = 2, features: tuple[FeatureSpec, ...] = FEATURES) -> list[Tensor]:
    return [
        torch.randn(images, feature.channels, size // feature.stride, size // feature.stride) for feature in features
    ]


def logits_of(rows: list[list[float]]) -> Tensor:
    return torch.tensor(rows).logit()[None]


def bounds_of(size: int = 1000) -> Tensor:
    return torch.tensor([[0.0, 0, size, size]])


def test_shapes_are_those_of_all_levels_in_turn() -> None:
    head = DenseHead(FEATURES, INFO, width=16, depth=1)
    assert head.strides == (8, 16, 32, 64)
    outputs = head(maps_for(128))
    number = 16**2 + 8**2 + 4**2 + 2**2
    assert outputs["logits"].shape == (2, number, 3)
    assert outputs["boxes"].shape == (2, number, 4)
    assert outputs["points"].shape == (number, 3)
    assert outputs["points"][:, 2].unique().tolist() == [8, 16, 32, 64]


@pytest.mark.parametrize(
    ("strides", "expected"),
    [
        ((4, 8, 16, 32), (8, 16, 32, 64)),
        ((16, 32, 64), (16, 32, 64)),
        ((7, 14, 28), (7, 14, 28, 56)),
        ((4,), (4, 8, 16, 32, 64)),
    ],
)
def test_default_strides_follow_the_backbone(strides: tuple[int, ...], expected: tuple[int, ...]) -> None:
    features = tuple(FeatureSpec(f"s{stride}", 8, stride) for stride in strides)
    assert DenseHead(features, INFO, width=8, depth=0).strides == expected


@pytest.mark.parametrize("scale", [8.0, 4.0])
def test_starts_with_rare_things_and_with_the_anchors_of_the_assignment(scale: float) -> None:
    torch.manual_seed(0)
    outputs = DenseHead(FEATURES, INFO, width=32, anchor_scale=scale)(maps_for(128))
    assert outputs["logits"].sigmoid().mean().item() == pytest.approx(0.01, rel=0.1)
    sides = (outputs["boxes"][..., 2:] - outputs["boxes"][..., :2]) / outputs["points"][:, 2:]
    assert sides.mean().item() == pytest.approx(scale, rel=0.1)


def test_each_level_has_its_own_scale_and_boxes_hold_their_points() -> None:
    torch.manual_seed(0)
    head = DenseHead(FEATURES, INFO, width=16)
    maps = maps_for(64)
    before = head(maps)["boxes"]
    with torch.no_grad():
        head.scales[1] = 2.0
    outputs = head(maps)
    changed = (outputs["boxes"] != before).all(dim=-1).all(dim=0)
    assert torch.equal(changed, outputs["points"][:, 2] == 16)
    centre = outputs["points"][:, :2]
    assert ((centre > outputs["boxes"][..., :2]) & (centre < outputs["boxes"][..., 2:])).all()


def test_every_parameter_learns() -> None:
    torch.manual_seed(0)
    head = DenseHead(FEATURES, INFO, width=16)
    boxes = torch.tensor([[[5.0, 5, 30, 30], [2, 2, 120, 120], [10, 10, 70, 60]]] * 2)
    targets = {
        "boxes": boxes, "labels": torch.tensor([[0, 1, 2]] * 2), "valid": torch.ones(2, 3, dtype=torch.bool),
        "ignore": torch.zeros(2, 0, 4), "ignore_valid": torch.zeros(2, 0, dtype=torch.bool),
    }  # fmt: skip
    sum(DetectionLoss(head)(head(maps_for(128)), targets).values()).backward()  # type: ignore[union-attr]
    assert [name for name, value in head.named_parameters() if value.grad is None or not value.grad.any()] == []


def test_the_strongest_of_overlapping_boxes_of_a_class_stays() -> None:
    head = DenseHead(FEATURES, INFO, width=8, depth=0)
    boxes = [[10, 10, 50, 50], [11, 10, 51, 50], [11, 10, 51, 50], [200, 200, 260, 260], [300, 300, 310, 310]]
    scores = [[0.9, 0.01, 0.01], [0.8, 0.01, 0.01], [0.01, 0.7, 0.01], [0.3, 0.01, 0.6], [0.01, 0.01, 0.04]]
    outputs = {"logits": logits_of(scores), "boxes": torch.tensor([boxes], dtype=torch.float32)}
    (found,) = head.predict(outputs, bounds_of())
    assert found["scores"].tolist() == pytest.approx([0.9, 0.7, 0.6, 0.3])
    assert found["labels"].tolist() == [0, 1, 2, 0]
    assert found["boxes"].tolist() == [boxes[0], boxes[2], boxes[3], boxes[3]]


def test_boxes_come_in_pixels_of_the_input_and_padding_holds_none() -> None:
    head = DenseHead(FEATURES, INFO, width=8, depth=0)
    boxes = torch.tensor([[[20.0, 30, 60, 70], [-40.0, 30, 60, 500], [0, 0, 100, 9]]])
    scores = [[0.9, 0.0001, 0.0001], [0.0001, 0.8, 0.0001], [0.7, 0.0001, 0.0001]]
    outputs = {"logits": logits_of(scores), "boxes": boxes}
    # 200 x 200 at half its size, ten rows below the input's edge.
    place = Placement.scaled((200, 200), (120, 100), (0.5, 0.5), (0.0, 10.0))
    (found,) = head.predict(outputs, torch.tensor([place.bounds]))
    assert found["boxes"].tolist() == [[20, 30, 60, 70], [0, 30, 60, 110]]
    assert Boxes(INFO).restored([(found, place)])["boxes"].tolist() == [[40, 40, 120, 120], [0, 40, 120, 200]]


def test_the_limits_of_detections_and_of_candidates_are_kept() -> None:
    boxes = torch.arange(50)[:, None] * 20.0 + torch.tensor([0.0, 0.0, 10.0, 10.0])
    scores = torch.linspace(0.9, 0.1, 50)[:, None].repeat(1, 3) * torch.tensor([1, 1e-3, 1e-3])
    outputs = {"logits": scores.logit()[None], "boxes": boxes[None]}
    for options, expected in (({}, 50), ({"max_detections": 7}, 7), ({"pre_nms": 5}, 5)):
        head = DenseHead(FEATURES, INFO, width=8, depth=0, **options)
        (found,) = head.predict(outputs, bounds_of(size=2000))
        assert len(found["boxes"]) == expected
        assert found["scores"].tolist() == sorted(found["scores"].tolist(), reverse=True)


def test_nothing_found_is_empty_not_absent() -> None:
    head = DenseHead(FEATURES, INFO, width=8, depth=0)
    outputs = {"logits": torch.full((1, 4, 3), -9.0), "boxes": torch.rand(1, 4, 4)}
    (found,) = head.predict(outputs, bounds_of())
    assert found["boxes"].shape == (0, 4)
    assert found["scores"].shape == found["labels"].shape == (0,)


def test_boxes_are_single_precision_under_autocast() -> None:
    head = DenseHead(FEATURES, INFO, width=16)
    with torch.autocast("cpu", torch.bfloat16):
        outputs = head(maps_for(64))
    assert outputs["boxes"].dtype == outputs["points"].dtype == torch.float32


def test_a_wild_output_does_not_overflow() -> None:
    head = DenseHead(FEATURES, INFO, width=8, depth=0)
    with torch.no_grad():
        assert head.distance.bias is not None
        head.distance.bias.fill_(1e4)
    boxes = head(maps_for(64))["boxes"]
    assert boxes.isfinite().all()
    assert boxes.max().item() == pytest.approx(32 + 64 * math.exp(5), rel=1e-3)


def test_exports() -> None:
    head = DenseHead(FEATURES, INFO, width=8, depth=1).eval()
    maps = maps_for(64)
    program = torch.export.export(head, (maps,), strict=False)
    for name, value in program.module()(maps).items():
        torch.testing.assert_close(value, head(maps)[name])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 0}, "width must be at least 1, got 0"),
        ({"depth": -1}, "depth must not be negative, got -1"),
        ({"nms_iou": 1.5}, r"nms_iou must be within 0\.\.1, got 1\.5"),
        ({"strides": (16, 8)}, r"strides must rise, as in \[8, 16, 32\], got \[16, 8\]"),
    ],
)
def test_wrong_options(options: dict[str, object], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        DenseHead(FEATURES, INFO, **options)  # type: ignore[arg-type]
