from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import log_loss
from torch import Tensor, nn

from mtframe.data import DataInfo
from mtframe.errors import RecipeError
from mtframe.kinds import FeatureSpec
from mtframe_classification.heads import Regressor
from mtframe_classification.losses import BinaryCrossEntropy, CrossEntropy, RegressionLoss

NAN = math.nan


def _logits(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float32).requires_grad_()


def _regression(**given: object) -> tuple[Regressor, RegressionLoss]:
    head = Regressor((FeatureSpec("c", 4, 8),), DataInfo("value", ("x", "y")))
    return head, RegressionLoss(head, **given)  # type: ignore[arg-type]


def test_cross_entropy_leaves_unknown_images_out() -> None:
    logits = _logits(5, 3)
    labels = torch.tensor([2, -1, 0, 1, -1])
    loss = CrossEntropy()({"logits": logits}, {"label": labels})["cross_entropy"]
    known = labels >= 0
    expected = log_loss(labels[known], logits[known].detach().double().softmax(1), labels=[0, 1, 2])
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    loss.backward()
    assert logits.grad is not None
    assert (logits.grad.abs().sum(1) > 0).tolist() == known.tolist()


def test_label_smoothing_spreads_over_all_classes() -> None:
    # -ln p of (0.9 + 0.1/2, 0.1/2) with logits (ln 3, 0): p = (3/4, 1/4).
    loss = CrossEntropy(label_smoothing=0.1)({"logits": torch.tensor([[math.log(3), 0]])}, {"label": torch.tensor([0])})
    assert loss["cross_entropy"].item() == pytest.approx(-0.95 * math.log(3 / 4) - 0.05 * math.log(1 / 4))


def test_probabilities_are_the_target_where_there_are_any() -> None:
    logits, shares = _logits(3, 4), torch.tensor([[0.25, 0.75, 0, 0], [1, 0, 0, 0], [0, 0, 0.5, 0.5]])
    targets = {"label": torch.tensor([1, -1, 2]), "probabilities": shares}
    loss = CrossEntropy(label_smoothing=0.2)({"logits": logits}, targets)["cross_entropy"]
    expected = -(logits.detach().log_softmax(1) * (0.8 * shares + 0.05)).sum(1)
    assert loss.item() == pytest.approx(float(expected[[0, 2]].mean()), rel=1e-5)


def test_binary_cross_entropy_leaves_unknown_cells_out() -> None:
    logits = _logits(3, 2)
    labels = torch.tensor([[1, NAN], [0, 1], [NAN, NAN]])
    loss = BinaryCrossEntropy()({"logits": logits}, {"labels": labels})["binary_cross_entropy"]
    known = ~labels.isnan()
    expected = log_loss(labels[known], logits[known].sigmoid().detach(), labels=[0, 1])
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    loss.backward()
    assert logits.grad is not None
    assert (logits.grad != 0).tolist() == known.tolist()


def test_binary_cross_entropy_weighs_positives_and_smooths() -> None:
    outputs = {"logits": torch.tensor([[math.log(3), 0]])}
    labels = {"labels": torch.tensor([[1.0, 0.0]])}
    weighted = BinaryCrossEntropy(positive_weight=4.0)(outputs, labels)["binary_cross_entropy"]
    assert weighted.item() == pytest.approx((-4 * math.log(3 / 4) - math.log(1 / 2)) / 2)
    smooth = BinaryCrossEntropy(label_smoothing=0.2)(outputs, labels)["binary_cross_entropy"]
    assert smooth.item() == pytest.approx((-0.9 * math.log(3 / 4) - 0.1 * math.log(1 / 4) - math.log(1 / 2)) / 2)


@pytest.mark.parametrize(
    ("kind", "expected"),
    # Labels 1, 3, 5 and 9 standardised: mean 4.5, standard deviation √8.75. Predictions 0 standard deviations.
    [
        ("l1", np.mean(np.abs(np.array([1, 3, 5, 9]) - 4.5)) / math.sqrt(8.75)),
        ("l2", 1.0),
        ("huber", np.mean([0.5 * (e * e) if e <= 1 else e - 0.5 for e in np.array([3.5, 1.5, 0.5, 4.5]) / 8.75**0.5])),
    ],
)
def test_regression_is_in_standard_deviations(kind: str, expected: float) -> None:
    _, loss = _regression(kind=kind)
    targets = {"value": torch.tensor([[1.0, NAN], [3, NAN], [5, NAN], [9, NAN]])}
    assert loss({"standardised": torch.zeros(4, 2)}, targets)[kind].item() == pytest.approx(expected, rel=1e-5)


def test_huber_is_torchs_with_its_delta() -> None:
    head, loss = _regression(delta=0.3)
    targets = {"value": torch.tensor([[1.0, 2], [4, 8], [NAN, 5]])}
    outputs = {"standardised": _logits(3, 2)}
    loss(outputs, targets)
    loss.eval()
    again = loss(outputs, targets)["huber"]
    wanted = (targets["value"] - head.mean) / head.std
    known = ~wanted.isnan()
    expected = F.huber_loss(outputs["standardised"][known], wanted[known], delta=0.3)
    assert again.item() == pytest.approx(expected.item(), rel=1e-5)
    assert head.seen.tolist() == [2, 3], "evaluation does not count labels"


def test_the_loss_does_not_own_the_heads_weights() -> None:
    _, loss = _regression()
    assert list(loss.parameters()) == []
    assert loss.state_dict() == {}


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("count", [0, 4])
def test_nothing_known_is_nothing_lost(count: int, smoothing: float) -> None:
    logits = _logits(count, 3)
    label = torch.full((count,), -1)
    losses: list[tuple[nn.Module, dict[str, Tensor]]] = [
        (CrossEntropy(label_smoothing=smoothing), {"label": label}),
        (CrossEntropy(label_smoothing=smoothing), {"label": label, "probabilities": torch.zeros(count, 3)}),
        (BinaryCrossEntropy(label_smoothing=smoothing), {"labels": torch.full((count, 3), NAN)}),
    ]
    for loss, targets in losses:
        (value,) = loss({"logits": logits}, targets).values()
        (gradient,) = torch.autograd.grad(value, logits)
        assert value.item() == 0
        assert torch.equal(gradient, torch.zeros(count, 3))
    head, regression = _regression()
    outputs = head([torch.randn(count, 4, 2, 2)])
    (value,) = regression(outputs, {"value": torch.full((count, 2), NAN)}).values()
    value.backward()
    assert value.item() == 0
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in head.parameters())
    assert (head.mean.tolist(), head.std.tolist()) == ([0, 0], [1, 1])


def test_options_out_of_range_are_refused() -> None:
    with pytest.raises(RecipeError, match="label_smoothing: must be 0 or more and below 1, got 1"):
        CrossEntropy(label_smoothing=1.0)
    with pytest.raises(RecipeError, match="positive_weight: must be above 0, got 0"):
        BinaryCrossEntropy(positive_weight=0.0)
    with pytest.raises(RecipeError, match="delta: must be above 0, got -1"):
        _regression(delta=-1.0)
