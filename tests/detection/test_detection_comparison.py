"""The comparison with torchvision's detectors compares with torchvision's detectors: the same losses and detections."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.models.detection.transform import GeneralizedRCNNTransform

from mtframe.data import DataInfo
from mtframe.kinds import FeatureSpec
from mtframe.registry import resolve

BENCHMARK = Path(__file__).resolve().parents[1] / "benchmarks" / "detectors.py"
FEATURES = tuple(FeatureSpec(f"c{stride}", 8, stride) for stride in (8, 16, 32))


class Fixed(nn.Module):
    """A backbone that gives the pyramid of these maps, whatever the images, as torchvision asks for it."""

    def __init__(self, pyramid: Any, maps: list[Tensor]) -> None:
        super().__init__()
        self.pyramid, self.maps, self.out_channels = pyramid, maps, pyramid.out_channels

    def forward(self, images: Tensor) -> OrderedDict[str, Tensor]:
        return OrderedDict((str(number), level) for number, level in enumerate(self.pyramid(self.maps)))


@pytest.mark.parametrize("name", ["FcosHead", "RetinaNetHeadV2"])
def test_losses_and_detections_are_those_of_torchvisions_whole_model(name: str) -> None:
    torch.manual_seed(0)
    head = resolve("head", f"{BENCHMARK}:{name}").component(FEATURES, DataInfo("boxes", ("a", "b", "c")))
    maps = [torch.randn(2, 8, 128 // feature.stride, 128 // feature.stride) for feature in FEATURES]
    # So that there are detections.
    nn.init.zeros_(head.detector.head.classification_head.cls_logits.bias)
    targets = {
        "boxes": torch.tensor([[[5.0, 5, 60, 70], [50, 50, 120, 120]], [[3, 3, 40, 30], [0, 0, 0, 0]]]),
        "labels": torch.tensor([[0, 2], [1, 0]]), "valid": torch.tensor([[True, True], [True, False]]),
    }  # fmt: skip
    outputs = head(maps)
    losses = resolve("loss", f"{BENCHMARK}:OwnLoss").component(head)(outputs, targets)
    with torch.no_grad():
        found = head.predict(outputs, torch.tensor([[0.0, 0, 128, 128]] * 2))

    whole = head.detector
    whole.backbone = Fixed(whole.backbone, maps)
    whole.transform = GeneralizedRCNNTransform(128, 128, [0.0] * 3, [1.0] * 3)
    lists = [
        {"boxes": targets["boxes"][image][mask], "labels": targets["labels"][image][mask]}
        for image, mask in enumerate(targets["valid"])
    ]
    for term, value in whole.train()(list(torch.rand(2, 3, 128, 128)), lists).items():
        torch.testing.assert_close(losses[term], value)
    with torch.no_grad():
        expected = whole.eval()(list(torch.rand(2, 3, 128, 128)))
    assert len(found[0]["boxes"]) >= 100
    for ours, theirs in zip(found, expected, strict=True):
        for key in ("boxes", "scores", "labels"):
            torch.testing.assert_close(ours[key], theirs[key])
