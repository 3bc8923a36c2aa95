from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses import FakeTensorMode
from torchvision.ops import box_iou

from mtframe.data import DataInfo
from mtframe.errors import RecipeError
from mtframe.kinds import FeatureSpec
from mtframe_detection.assignment import match_proposals
from mtframe_detection.box_geometry import refine
from mtframe_detection.losses import CrossEntropyIoULoss, DetectionLoss
from mtframe_detection.rfcn import RFCNHead, propose

INFO = DataInfo("boxes", ("cat", "dog", "bird"))
FEATURES = tuple(FeatureSpec(f"c{n}", 4 * 2**n, 2**n) for n in range(3, 6))


def maps_for(size: int, images: int = 2) -> list[Tensor]:
    return [torch.randn(images, f.channels, size // f.stride, size // f.stride) for f in FEATURES]


def targets_of(*images: list[list[float]], ignore: list[float] | None = None) -> dict[str, Tensor]:
    """Boxes of each image, as many in each; labels count up."""
    boxes = torch.tensor(images).reshape(len(images), -1, 4)
    count = boxes.shape[1]
    regions = torch.tensor([[ignore]] * len(images)) if ignore else torch.zeros(len(images), 0, 4)
    return {
        "boxes": boxes, "labels": torch.arange(count).expand(len(images), -1) % 3,
        "valid": torch.ones(len(images), count, dtype=torch.bool),
        "ignore": regions, "ignore_valid": torch.ones(regions.shape[:2], dtype=torch.bool),
    }  # fmt: skip


def test_shapes_and_that_proposals_are_boxes_of_the_dense_head_within_the_image() -> None:
    torch.manual_seed(0)
    head = RFCNHead(FEATURES, INFO, width=16, depth=1, proposals=7, bins=2)
    outputs = head(maps_for(64))
    assert outputs["proposals"].shape == outputs["refined_boxes"].shape == (2, 7, 4)
    assert outputs["refined_logits"].shape == (2, 7, 3)
    inside = outputs["boxes"].clamp(0, 64)
    for image in range(2):
        for box in outputs["proposals"][image]:
            assert (inside[image] == box).all(dim=1).any()
    assert not outputs["proposals"].requires_grad


def test_starts_where_the_dense_head_is_and_leaves_that_to_its_own_loss() -> None:
    torch.manual_seed(0)
    head = RFCNHead(FEATURES, INFO, width=16, depth=1)
    nn.init.normal_(head.dense.score.weight)
    nn.init.zeros_(head.score_maps.weight)
    nn.init.zeros_(head.box_maps.weight)
    outputs = head(maps_for(64))
    torch.testing.assert_close(outputs["refined_boxes"], outputs["proposals"])
    for image in range(2):
        for logits in outputs["refined_logits"][image]:
            assert (outputs["logits"][image] == logits).all(dim=1).any()
    outputs["refined_logits"].sum().backward()
    assert head.dense.score.weight.grad is None
    assert head.score_maps.weight.grad is not None


def test_fewer_points_than_proposals_are_all_proposals() -> None:
    outputs = RFCNHead(FEATURES, INFO, width=8, depth=0, strides=(32, 64), proposals=100)(maps_for(64))
    assert outputs["proposals"].shape == (2, 5, 4)


def test_proposals_that_a_stronger_one_covers_come_last() -> None:
    boxes = torch.tensor([[[0.0, 0, 10, 10], [0, 0, 10, 9], [0, 0, 10, 4], [50, 50, 60, 60]]])
    scores = torch.tensor([[0.9, 0.8, 0.2, 0.1]])
    assert propose(scores, boxes, 3).tolist() == [[0, 2, 3]]
    assert propose(scores, boxes, 9).tolist() == [[0, 2, 3, 1]]


def test_chunks_of_candidates_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    corner = torch.rand(2, 90, 2, generator=generator) * 20
    boxes = torch.cat([corner, corner + 15 + torch.rand(2, 90, 2, generator=generator) * 5], dim=2)
    scores = torch.rand(2, 90, generator=generator)
    whole = propose(scores, boxes, 20)
    monkeypatch.setattr("mtframe_detection.rfcn._CHUNK", 7 * 80)
    assert torch.equal(propose(scores, boxes, 20), whole)
    # By pairs: 80 candidates, of which those come first that no stronger one covers.
    for image in range(2):
        order = scores[image].argsort(descending=True)[:80]
        overlaps = box_iou(boxes[image, order], boxes[image, order])
        free = [number for number in range(80) if not (overlaps[number, :number] > 0.7).any()]
        assert 5 < len(free) < 80
        assert whole[image, : len(free)].tolist() == order[free][:20].tolist()


def test_refined_boxes_by_hand() -> None:
    boxes = torch.tensor([[10.0, 20, 30, 60]])
    # Right by a quarter of the width, up by a tenth of the height; twice as wide, half as high.
    changes = torch.tensor([[0.25, -0.1, 2.0, 0.5]])
    changes[:, 2:] = changes[:, 2:].log()
    torch.testing.assert_close(refine(boxes, changes), torch.tensor([[5.0, 26, 45, 46]]))
    assert refine(boxes, torch.full((1, 4), 1e9)).isfinite().all()


def test_proposals_are_matched_by_overlap_and_each_box_has_its_best() -> None:
    targets = targets_of([[0.0, 0, 10, 10], [100, 100, 120, 120], [200, 0, 210, 10]], ignore=[300.0, 0, 400, 100])
    proposals = torch.tensor([[
        [0.0, 0, 10, 8], [0, 0, 10, 6], [0, 0, 10, 4], [100, 100, 109, 109], [100, 100, 108, 108],
        [310, 10, 320, 20], [280, 0, 305, 10], [500, 500, 510, 510],
    ]])  # fmt: skip
    matches = match_proposals(proposals, targets)
    # IoU 0.8, 0.6, 0.4 with the first; 0.2 and 0.16 with the second, whose best is taken; none with the third.
    assert matches.positive.tolist() == [[True, True, False, True, False, False, False, False]]
    assert matches.labels[matches.positive].tolist() == [0, 0, 1]
    assert matches.boxes[matches.positive][:, 0].tolist() == [0, 0, 100]
    # The sixth lies in the region to ignore, the seventh by a fifth.
    assert matches.ignored.tolist() == [[False] * 5 + [True, False, False]]


def test_the_best_proposal_of_a_box_is_its_own_even_if_it_fits_another_better() -> None:
    targets = targets_of([[0.0, 0, 10, 10], [0, 0, 10, 4]])
    matches = match_proposals(torch.tensor([[[0.0, 0, 10, 8], [0, 0, 10, 10]]]), targets)
    assert matches.positive.tolist() == [[True, True]]
    assert matches.labels.tolist() == [[1, 0]]


def test_chunks_of_targets_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    corner = torch.rand(2, 23, 2) * 80
    targets = targets_of(*torch.cat([corner, corner + 5 + torch.rand(2, 23, 2) * 30], dim=2).tolist())
    start = torch.rand(2, 40, 2) * 80
    proposals = torch.cat([start, start + 5 + torch.rand(2, 40, 2) * 30], dim=2)
    whole = match_proposals(proposals, targets)
    monkeypatch.setattr("mtframe_detection.atss._CHUNK", 2 * 40 * 4)
    parts = match_proposals(proposals, targets)
    assert whole.positive.any()
    assert torch.equal(parts.positive, whole.positive)
    assert torch.equal(parts.boxes, whole.boxes)


@pytest.mark.parametrize("loss", [DetectionLoss, CrossEntropyIoULoss])
def test_every_parameter_learns(loss: type[DetectionLoss | CrossEntropyIoULoss]) -> None:
    torch.manual_seed(0)
    head = RFCNHead(FEATURES, INFO, width=16, depth=1)
    targets = targets_of(*[[[5.0, 5, 30, 30], [2, 2, 120, 120], [10, 10, 70, 60]]] * 2)
    losses = loss(head)(head(maps_for(128)), targets)
    assert sum(name.startswith("second_") for name in losses) == 2
    torch.stack(list(losses.values())).sum().backward()
    assert [name for name, value in head.named_parameters() if value.grad is None or not value.grad.any()] == []


def second(logits: Tensor, boxes: Tensor, proposals: Tensor, targets: Mapping[str, Tensor]) -> dict[str, float]:
    """The second stage's terms alone."""
    head = RFCNHead(FEATURES, INFO, width=8, depth=0)
    outputs = head(maps_for(32, images=1)) | {
        "refined_logits": logits, "refined_boxes": boxes, "proposals": proposals,
    }  # fmt: skip
    return {name: value.item() for name, value in DetectionLoss(head)(outputs, targets).items()}


def test_the_loss_of_a_perfect_second_stage_is_next_to_nothing() -> None:
    targets = targets_of([[0.0, 0, 10, 10]], ignore=[100.0, 100, 200, 200])
    proposals = torch.tensor([[[0.0, 0, 10, 9], [50, 50, 60, 60], [110, 110, 120, 120]]])
    # The third is sure of something in the region to ignore.
    logits = torch.tensor([[[20.0, -20, -20], [-20, -20, -20], [20, 20, 20]]])
    refined = torch.tensor([[[0.0, 0, 10, 10], [50, 50, 60, 60], [110, 110, 120, 120]]])
    losses = second(logits, refined, proposals, targets)
    assert losses["second_score"] == pytest.approx(0, abs=1e-5)
    assert losses["second_box"] == pytest.approx(0, abs=1e-5)
    # Half of the box missing: GIoU 0.5, weight 2.
    refined[0, 0, 3] = 5
    assert second(logits, refined, proposals, targets)["second_box"] == pytest.approx(1.0, abs=1e-4)


def test_detections_are_the_refined_ones_cut_to_the_image() -> None:
    head = RFCNHead(FEATURES, INFO, width=8, depth=0)
    outputs = {
        "refined_logits": torch.tensor([[[0.9, 0.01, 0.01], [0.01, 0.5, 0.01]]]).logit(),
        "refined_boxes": torch.tensor([[[10.0, 10, 50, 50], [100, 100, 180, 180]]]),
    }
    (found,) = head.predict(outputs, torch.tensor([[0.0, 20, 160, 300]]))
    assert found["scores"].tolist() == pytest.approx([0.9, 0.5])
    assert found["labels"].tolist() == [0, 1]
    assert found["boxes"].tolist() == [[10, 20, 50, 50], [100, 100, 160, 180]]


def test_exports() -> None:
    torch.manual_seed(0)
    head = RFCNHead(FEATURES, INFO, width=8, depth=1, proposals=10).eval()
    maps = maps_for(64)
    program = torch.export.export(head, (maps,), strict=False)
    for name, value in program.module()(maps).items():
        torch.testing.assert_close(value, head(maps)[name])


def test_shapes_do_not_depend_on_what_is_in_the_tensors() -> None:
    """Fake tensors have shapes and no values: whatever needs a value to go on raises."""
    head = RFCNHead(FEATURES, INFO, width=8, depth=0, proposals=10)
    outputs = {name: value.detach() for name, value in head(maps_for(64)).items()}
    targets = targets_of([[6.0, 6, 50, 46]], [[0.0, 0, 20, 20]], ignore=[0.0, 0, 9, 9])
    with FakeTensorMode() as mode:
        fake = [{name: mode.from_tensor(value) for name, value in part.items()} for part in (outputs, targets)]
        losses = DetectionLoss(head)(*fake)
    assert {value.shape for value in losses.values()} == {()}


def test_single_precision_under_autocast() -> None:
    with torch.autocast("cpu", torch.bfloat16):
        outputs = RFCNHead(FEATURES, INFO, width=16)(maps_for(64))
    for name in ("proposals", "refined_boxes", "refined_logits"):
        assert outputs[name].dtype == torch.float32


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"proposals": 0}, "proposals must be at least 1, got 0"),
        ({"bins": 0}, "bins must be at least 1, got 0"),
        ({"pool_stride": 7}, r"pool_stride must be one of \[8, 16, 32, 64\], got 7"),
        ({"width": 0}, "width must be at least 1, got 0"),
        ({"pre_nms": 0}, "pre_nms must be at least 1, got 0"),
    ],
)
def test_wrong_options(options: dict[str, int], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        RFCNHead(FEATURES, INFO, **options)  # type: ignore[arg-type]
