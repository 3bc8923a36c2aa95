"""Sampled class centres: who enters a step, and what the loss over them is."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mtframe.data import DataInfo
from mtframe.errors import RecipeError
from mtframe.kinds import FeatureSpec
from mtframe_face._centres import NOBODY, sample_classes, unit_rows
from mtframe_face.adaface import AdaFaceLoss
from mtframe_face.embedding import EmbeddingHead
from mtframe_face.margin_losses import ArcFaceLoss, CosFaceLoss
from mtframe_face.softmax import SoftmaxLoss

CENTRE_LOSSES = (SoftmaxLoss, CosFaceLoss, ArcFaceLoss, AdaFaceLoss)


def _loss(kind: type[nn.Module], classes: int, **options: float) -> nn.Module:
    torch.manual_seed(0)
    info = DataInfo("identity", tuple(map(str, range(classes))))
    return kind(EmbeddingHead([FeatureSpec("last", 8, 32)], dim=16), info, **options)


def _weights(loss: nn.Module) -> nn.Parameter:
    return loss.classifier.weight if isinstance(loss, SoftmaxLoss) else loss.centres


def test_everybody_in_the_batch_enters_and_the_rest_is_drawn_evenly() -> None:
    torch.manual_seed(0)
    labels = torch.tensor([17, 3, NOBODY, 17, 99])
    drawn_at_all = torch.zeros(100)
    for _ in range(400):
        drawn, positions = sample_classes(labels, 100, 23)
        assert len(drawn) == len(drawn.unique()) == 23
        assert positions[2] == NOBODY
        assert torch.equal(drawn[positions[[0, 1, 3, 4]]], labels[[0, 1, 3, 4]])
        drawn_at_all[drawn] += 1
    others = drawn_at_all[[n for n in range(100) if n not in (3, 17, 99)]]
    # 20 of 97 others: 82.5 of 400 draws, standard deviation 8.
    assert others.mean().item() == pytest.approx(400 * 20 / 97)
    assert others.min() > 82.5 - 40
    assert others.max() < 82.5 + 40


def test_more_people_in_the_batch_than_are_to_be_drawn_all_enter() -> None:
    drawn, positions = sample_classes(torch.arange(10), 50, 4)
    assert drawn.tolist() == list(range(10))
    assert positions.tolist() == list(range(10))


def test_nobody_in_the_batch_is_no_error() -> None:
    drawn, positions = sample_classes(torch.full((3,), NOBODY), 50, 4)
    assert len(drawn) == 4
    assert positions.tolist() == [NOBODY] * 3


@pytest.mark.parametrize("kind", CENTRE_LOSSES)
def test_the_loss_is_the_full_one_over_the_drawn_centres(kind: type[nn.Module]) -> None:
    loss = _loss(kind, 40, sample=0.25)
    outputs, targets = {"embedding": torch.randn(6, 16)}, {"label": torch.tensor([0, 39, 5, NOBODY, 5, 20])}
    torch.manual_seed(3)
    value = loss(outputs, targets)["identity"]
    value.backward()
    torch.manual_seed(3)
    drawn, positions = sample_classes(targets["label"], 40, 10)
    alone = _loss(kind, 10, sample=1.0)
    _weights(alone).data = _weights(loss).data[drawn]
    if isinstance(loss, SoftmaxLoss):
        alone.classifier.bias.data = loss.classifier.bias.data[drawn]
    expected = alone(outputs, {"label": positions})["identity"]
    assert value.item() == pytest.approx(expected.item(), rel=1e-6)
    touched = _weights(loss).grad.abs().sum(1) > 0
    assert set(touched.nonzero().flatten().tolist()) <= set(drawn.tolist())
    assert touched.sum() == 10


@pytest.mark.parametrize("kind", CENTRE_LOSSES)
def test_evaluation_takes_all_centres(kind: type[nn.Module]) -> None:
    sampled, full = _loss(kind, 40, sample=0.1).eval(), _loss(kind, 40, sample=1.0).eval()
    full.load_state_dict(sampled.state_dict())
    if hasattr(full, "scale"):
        full.scale = sampled.scale
    outputs, targets = {"embedding": torch.randn(6, 16)}, {"label": torch.arange(6)}
    assert sampled(outputs, targets)["identity"].item() == full(outputs, targets)["identity"].item()


def test_unit_rows_and_their_gradient_are_those_of_torch() -> None:
    torch.manual_seed(0)
    rows = torch.randn(7, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(unit_rows, rows)
    assert torch.equal(unit_rows(rows), F.normalize(rows))
    nothing = torch.zeros(2, 5, requires_grad=True)
    unit_rows(nothing).sum().backward()
    assert nothing.grad is not None
    assert nothing.grad.isfinite().all()


def test_the_scale_follows_the_number_of_people_in_a_step() -> None:
    assert _loss(CosFaceLoss, 10_010, margin=0.0, sample=0.1).scale == pytest.approx(math.sqrt(2) * math.log(1000))


def test_a_tenth_of_the_centres_still_learns_to_tell_people_apart() -> None:
    """Fixed embeddings about 60 directions: after training with 6 of 60 centres a step all are nearest to their own."""
    torch.manual_seed(0)
    loss = _loss(CosFaceLoss, 60, sample=0.1)
    directions = F.normalize(torch.randn(60, 16))
    optimizer = torch.optim.Adam(loss.parameters(), lr=0.1)
    for _ in range(150):
        labels = torch.randint(60, (4,))
        optimizer.zero_grad()
        loss({"embedding": directions[labels]}, {"label": labels})["identity"].backward()
        optimizer.step()
    assert torch.equal((directions @ F.normalize(loss.centres).T).argmax(1), torch.arange(60))


@pytest.mark.parametrize("sample", [0.0, -1.0, 1.5])
def test_a_part_out_of_range_is_refused(sample: float) -> None:
    for kind in CENTRE_LOSSES:
        with pytest.raises(RecipeError, match=rf"sample: must be above 0 and at most 1, .*; got {sample:g}"):
            _loss(kind, 4, sample=sample)
