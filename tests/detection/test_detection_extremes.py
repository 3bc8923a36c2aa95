"""What breaks detectors: no object at all, objects of a few pixels, more than a thousand of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torchvision.ops import box_iou

from mtframe.data import DataInfo, Sample
from mtframe.kinds import FeatureSpec
from mtframe_detection import atss as _assign
from mtframe_detection.average_precision import CocoAP
from mtframe_detection.boxes import Boxes
from mtframe_detection.dense import DenseHead
from mtframe_detection.letterbox import Letterbox
from mtframe_detection.losses import CrossEntropyIoULoss, DetectionLoss
from mtframe_detection.rfcn import RFCNHead
from placed import bounds_of, labelled

INFO = DataInfo("boxes", ("bright", "dark"))
FEATURES = (FeatureSpec("c3", 8, 8), FeatureSpec("c4", 8, 16))

both_heads = pytest.mark.parametrize("head", [DenseHead, RFCNHead])
both_losses = pytest.mark.parametrize("loss", [DetectionLoss, CrossEntropyIoULoss])


class LargestTensor(TorchDispatchMode):
    """Elements of the largest tensor that is made; the gradient's too."""

    def __init__(self) -> None:
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for value in result if isinstance(result, (tuple, list)) else [result]:
            if isinstance(value, Tensor):
                # What is only expanded takes no memory.
                self.elements = max(self.elements, value.untyped_storage().nbytes() // value.element_size())
        return result


def maps_for(size: int, images: int) -> list[Tensor]:
    return [torch.randn(images, f.channels, size // f.stride, size // f.stride) for f in FEATURES]


def targets_for(boxes: Tensor, regions: Tensor | None = None) -> dict[str, Tensor]:
    """The same boxes (N, 4), and regions to ignore, in each of two images."""
    regions = torch.zeros(0, 4) if regions is None else regions
    return {
        "boxes": boxes.expand(2, -1, -1), "labels": torch.arange(len(boxes)).expand(2, -1) % 2,
        "valid": torch.ones(2, len(boxes), dtype=torch.bool),
        "ignore": regions.expand(2, -1, -1), "ignore_valid": torch.ones(2, len(regions), dtype=torch.bool),
    }  # fmt: skip


def bounds_for(size: int, images: int) -> Tensor:
    return torch.tensor([[0.0, 0, size, size]] * images)


@both_heads
@both_losses
def test_a_batch_of_negative_images(head: Any, loss: Any) -> None:
    torch.manual_seed(0)
    built = head(FEATURES, INFO, width=8, depth=1)
    outputs = built(maps_for(64, 2))
    losses = loss(built)(outputs, targets_for(torch.zeros(0, 4)))
    torch.stack(list(losses.values())).sum().backward()
    for name, value in losses.items():
        assert value.isfinite()
        assert (value == 0) == name.endswith("box"), name
    gradients = [value.grad for value in built.parameters() if value.grad is not None]
    assert all(gradient.isfinite().all() for gradient in gradients)
    assert any(gradient.any() for gradient in gradients)
    assert [len(found["boxes"]) for found in built.predict(outputs, bounds_for(64, 2))] == [0, 0]


@both_heads
@both_losses
def test_1500_objects_and_as_many_regions_to_ignore(monkeypatch: pytest.MonkeyPatch, head: Any, loss: Any) -> None:
    torch.manual_seed(0)
    # A small part of what is allowed, for images that are small too.
    monkeypatch.setattr(_assign, "_CHUNK", 1 << 19)
    corner = torch.rand(3000, 2) * 250
    boxes = torch.cat([corner, corner + 3 + torch.rand(3000, 2) * 20], dim=1)
    options = {"max_detections": 1500, "pre_nms": 4000, "score_threshold": 0, "nms_iou": 1}
    options |= {"proposals": 400} if head is RFCNHead else {}
    built = head(FEATURES, INFO, width=8, depth=0, **options)
    with LargestTensor() as largest:
        outputs = built(maps_for(256, 2))
        losses = loss(built)(outputs, targets_for(boxes[:1500], boxes[1500:]))
        torch.stack(list(losses.values())).sum().backward()
        found = built.predict(outputs, bounds_for(256, 2))
    assert all(value.isfinite() for value in losses.values())
    assert losses["box"] > 0
    # Coordinates of corners come in twos. Unchunked it would be 2 x 1500 x 1360 points, or 400 proposals.
    assert largest.elements <= 2 * (1 << 19)
    points = len(outputs["points"]) if head is DenseHead else built.proposals
    assert [len(one["boxes"]) for one in found] == [min(1500, 2 * points)] * 2


def specks() -> list[Sample]:
    """Eight grey pictures of 64 x 64 with three specks each, 2 to 4 pixels a side, most of them between the points."""
    rng, samples = np.random.default_rng(0), []
    for index in range(8):
        image, boxes = torch.full((3, 64, 64), 120, dtype=torch.uint8), []
        cells = rng.choice(49, 3, replace=False)
        for number, cell in enumerate(cells):
            width, height = rng.integers(2, 5, 2)
            x, y = (8 * int(place) + int(rng.integers(0, 6)) for place in divmod(int(cell), 7))
            image[:, y : y + height, x : x + width] = 250 * (1 - number % 2)
            boxes.append([x, y, x + width, y + height])
        target = {
            "boxes": torch.tensor(boxes, dtype=torch.float64), "labels": torch.tensor([0, 1, 0]),
            "crowd": torch.zeros(3, dtype=torch.bool), "area": torch.full((3,), 9.0),
        }  # fmt: skip
        samples.append(Sample(image, target, (64, 64), index))
    return samples


def test_specks_of_2_to_4_pixels_are_learned_at_stride_8() -> None:
    torch.manual_seed(0)
    backbone = nn.Sequential(nn.Conv2d(3, 32, 8, 8), nn.ReLU(), nn.Conv2d(32, 32, 1), nn.ReLU())
    head = DenseHead((FeatureSpec("c3", 32, 8),), INFO, width=32, depth=1, strides=(8, 16))
    loss = DetectionLoss(head)
    optimizer = torch.optim.AdamW([*backbone.parameters(), *head.parameters()], lr=5e-3)
    samples = specks()
    inputs, targets = labelled(Letterbox(64, False), Boxes(INFO), samples)
    centre = (targets["boxes"][..., :2] + targets["boxes"][..., 2:]) / 2
    assert ((centre % 8 - 4).abs() > 2).any()
    for _ in range(150):
        losses = loss(head([backbone(inputs.images / 128 - 1)]), targets)
        optimizer.zero_grad()
        torch.stack(list(losses.values())).sum().backward()
        optimizer.step()
    metric = CocoAP(INFO)
    metric.update(head.predict(head([backbone(inputs.images / 128 - 1)]), bounds_of(inputs)), samples)
    assert metric.compute()["AP50"] > 0.9


def test_any_box_whose_centre_is_in_a_cell_can_be_predicted_by_its_point() -> None:
    """What the head's four numbers must be is found in closed form, so that every such box has them."""
    from mtframe_detection.box_geometry import distances_to_boxes, reach_out

    generator = torch.Generator().manual_seed(0)
    size = torch.rand(500, 2, generator=generator, dtype=torch.float64).pow(4) * 20 + 1e-3  # strides
    centre = torch.rand(500, 2, generator=generator, dtype=torch.float64) * 0.98 - 0.49
    # near + far = size, and (far - near) / 2 moves the centre, by half a stride more where near is nothing.
    skew = centre / (size / 2 + 0.5)
    sides = torch.cat([size * (1 - skew) / 2, size * (1 + skew) / 2], dim=1).T
    assert (sides > 0).all()
    boxes = distances_to_boxes(torch.zeros(500, 2, dtype=torch.float64), reach_out(sides).T)
    expected = torch.cat([centre - size / 2, centre + size / 2], dim=1)
    torch.testing.assert_close(boxes, expected)
    assert box_iou(boxes, expected).diagonal().min() > 0.999
