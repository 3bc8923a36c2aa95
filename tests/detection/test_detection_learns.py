from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mtframe.data import DataInfo, Sample, evaluation_batch
from mtframe.evaluation import Passes, TaskViews
from mtframe.kinds import FeatureSpec
from mtframe.model import MultiTaskModel, Network
from mtframe_detection.average_precision import CocoAP
from mtframe_detection.boxes import Boxes
from mtframe_detection.dense import DenseHead
from mtframe_detection.letterbox import Letterbox
from mtframe_detection.losses import CrossEntropyIoULoss, DetectionLoss
from mtframe_detection.rfcn import RFCNHead
from placed import bounds_of, labelled

INFO = DataInfo("boxes", ("bright", "dark"))
FEATURES = (FeatureSpec("c3", 16, 8), FeatureSpec("c4", 16, 16))


class TwoMaps(nn.Module):
    features = FEATURES

    def __init__(self) -> None:
        super().__init__()
        self.fine = nn.Sequential(nn.Conv2d(3, 16, 8, 4, 2), nn.ReLU(), nn.Conv2d(16, 16, 3, 2, 1), nn.ReLU())
        self.coarse = nn.Sequential(nn.Conv2d(16, 16, 3, 2, 1), nn.ReLU())

    def forward(self, images: Tensor) -> list[Tensor]:
        fine = self.fine(images)
        return [fine, self.coarse(fine)]


def pictures() -> list[Sample]:
    """Six grey pictures, 100 x 80, each with a bright and a dark rectangle of its own place and size."""
    rng, samples = np.random.default_rng(0), []
    for index in range(6):
        image, boxes = torch.full((3, 80, 100), 120, dtype=torch.uint8), []
        for label, (x, y) in enumerate([(2, 2), (52, 32)]):
            x, y = x + int(rng.integers(0, 14)), y + int(rng.integers(0, 14))
            width, height = (int(side) for side in rng.integers(14, 32, 2))
            image[:, y : y + height, x : x + width] = 250 * (1 - label)
            boxes.append([x, y, x + width, y + height])
        target = {
            "boxes": torch.tensor(boxes, dtype=torch.float64), "labels": torch.tensor([0, 1]),
            "crowd": torch.zeros(2, dtype=torch.bool), "area": torch.tensor([400.0, 400.0]),
        }  # fmt: skip
        samples.append(Sample(image, target, (80, 100), index))
    return samples


@pytest.mark.parametrize(
    ("make_head", "make_loss"),
    [(DenseHead, DetectionLoss), (DenseHead, CrossEntropyIoULoss), (partial(RFCNHead, proposals=20), DetectionLoss)],
    ids=["dense", "cross-entropy-iou", "rfcn"],
)
def test_learns_a_few_pictures_by_heart(make_head: Any, make_loss: Any) -> None:
    torch.manual_seed(0)
    backbone, head = TwoMaps(), make_head(FEATURES, INFO, width=16, depth=1)
    loss = make_loss(head)
    optimizer = torch.optim.AdamW([*backbone.parameters(), *head.parameters()], lr=1e-2)
    samples, rng = pictures(), np.random.default_rng(0)
    train = Letterbox(96, True, scale=(0.9, 1.1), flip=0.5)
    for _ in range(80):
        inputs, targets = labelled(train, Boxes(INFO), samples, rng)
        losses = loss(head(backbone(inputs.images / 128 - 1)), targets)
        optimizer.zero_grad()
        torch.stack(list(losses.values())).sum().backward()
        optimizer.step()
    batch = evaluation_batch(Letterbox(96, False)(samples, rng), {})
    model: Any = MultiTaskModel(
        Network(backbone, [["t"]]), {"t": head}, {"t": loss}, mean=(128 / 255,) * 3, std=(128 / 255,) * 3
    )
    # It has seen one size only, so that at another boxes fit less well. The bounds leave room for other orders of
    # summation, with which 80 steps end elsewhere.
    model.eval()
    for views, least in ((TaskViews(Boxes(INFO)), 0.35), (TaskViews(Boxes(INFO), flip=True, scales=(1.0, 4 / 3)), 0.2)):
        metric = CocoAP(INFO)
        metric.update(Passes(model, {"t": views}).predict({("t",): batch})["t"], samples)
        values = metric.compute()
        assert values["AP50"] > 0.85, (views, values)
        assert values["AP"] > least, (views, values)


def test_the_second_stage_finds_objects_by_itself() -> None:
    """Before a dense head that has learned nothing, and of which nothing is trained."""
    torch.manual_seed(0)
    backbone, head = TwoMaps(), RFCNHead(FEATURES, INFO, width=16, depth=1, proposals=40, score_threshold=0.0)
    loss = DetectionLoss(head)
    own = [*head.tower.parameters(), *head.score_maps.parameters(), *head.box_maps.parameters()]
    optimizer = torch.optim.AdamW(own, lr=1e-2)
    samples = pictures()
    inputs, targets = labelled(Letterbox(96, False), Boxes(INFO), samples)
    with torch.no_grad():
        maps = backbone(inputs.images / 128 - 1)

    def ap50() -> float:
        metric = CocoAP(INFO)
        found = zip(head.predict(head(maps), bounds_of(inputs)), inputs.placements, strict=True)
        metric.update([Boxes(INFO).restored([(one, places[0])]) for one, places in found], samples)
        return metric.compute()["AP50"]

    assert ap50() < 0.1
    for _ in range(60):
        losses = loss(head(maps), targets)
        optimizer.zero_grad()
        torch.stack([losses["second_score"], losses["second_box"]]).sum().backward()
        optimizer.step()
    # Over 0.75 with three seeds.
    assert ap50() > 0.5
