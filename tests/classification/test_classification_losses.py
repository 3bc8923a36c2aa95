from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import log_loss
from sklearn.utils.class_weight import compute_class_weight
from torch import Tensor, nn
from torchvision.ops import sigmoid_focal_loss

from mtframe.data import ClassCounts, DataInfo
from mtframe.errors import RecipeError
from mtframe.kinds import FeatureSpec
from mtframe_classification.heads import Regressor
from mtframe_classification.losses import BinaryCrossEntropy, CrossEntropy, RegressionLoss
from mtframe_classification.weights import class_weights, positive_weights

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


# 1, 10 and 89 of 100 images.
RARE = DataInfo("label", ("cat", "dog", "bird"), ClassCounts((1, 10, 89), (99, 90, 11)))
TAGS = DataInfo("labels", ("sun", "rain", "snow"), ClassCounts((50, 2, 0), (50, 98, 60)))


def test_balanced_weights_are_those_of_scikit_learn() -> None:
    labels = np.repeat([0, 1, 2], RARE.counts.positive)  # type: ignore[union-attr]
    expected = compute_class_weight("balanced", classes=np.arange(3), y=labels)
    np.testing.assert_allclose(class_weights("balanced", RARE, 0.999), expected, rtol=1e-6)


def test_effective_numbers_are_those_of_the_paper() -> None:
    # E_n = (1 - 0.9^n) / 0.1: 1, 6.5132156, 9.9991539; weights 1 / E_n, with mean 1.
    inverse = np.array([1, 1 / 6.5132156, 1 / 9.999153868])
    np.testing.assert_allclose(class_weights("effective", RARE, 0.9), 3 * inverse / inverse.sum(), rtol=1e-4)
    # β = 0: no weights. β towards 1: the inverse of the number of images (arXiv:1901.05555, section 3.2).
    np.testing.assert_allclose(class_weights("effective", RARE, 0.0), [1, 1, 1])
    near = class_weights("effective", RARE, 0.9999999)
    assert near is not None
    np.testing.assert_allclose(near / near[2], [89, 8.9, 1], rtol=1e-4)


def test_positive_weights_make_both_answers_count_equally() -> None:
    # A label that never applies has weight 60: as if it did once.
    np.testing.assert_allclose(positive_weights("balanced", TAGS), [1, 49, 60])
    np.testing.assert_allclose(positive_weights({"rain": 3.0}, TAGS), [1, 3, 1])
    assert positive_weights(2.5, None).item() == 2.5


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_weighed_cross_entropy_is_torchs(smoothing: float) -> None:
    logits, labels = _logits(6, 3), torch.tensor([0, 2, 1, -1, 2, 0])
    weights = {"cat": 4.0, "bird": 0.5}
    loss = CrossEntropy(RARE, class_weights=weights, label_smoothing=smoothing)
    expected = F.cross_entropy(
        logits, labels, torch.tensor([4.0, 1.0, 0.5]), ignore_index=-1, label_smoothing=smoothing
    )
    torch.testing.assert_close(loss({"logits": logits}, {"label": labels})["cross_entropy"], expected)
    # Of nothing known: 0, and so is its gradient.
    nothing = loss({"logits": logits}, {"label": torch.full((6,), -1)})["cross_entropy"]
    (gradient,) = torch.autograd.grad(nothing, logits)
    assert (nothing.detach().item(), gradient.abs().max().item()) == (0, 0)


def test_weights_of_mixed_images_are_mixed() -> None:
    shares, logits = torch.tensor([[0.25, 0.75], [1.0, 0.0]]), torch.tensor([[0.0, math.log(3)], [0.0, 0.0]])
    loss = CrossEntropy(DataInfo("label", ("a", "b")), class_weights={"a": 3.0})
    value = loss({"logits": logits}, {"label": torch.tensor([1, 0]), "probabilities": shares})["cross_entropy"]
    # p = (1/4, 3/4) and (1/2, 1/2); weights of the images 3/4 + 3/4 and 3.
    terms = -0.25 * 3 * math.log(1 / 4) - 0.75 * math.log(3 / 4) - 3 * math.log(1 / 2)
    assert value.item() == pytest.approx(terms / (1.5 + 3))


def test_focal_loss_of_one_label_by_hand() -> None:
    logits, labels = torch.tensor([[math.log(9), 0.0], [0.0, 0.0]]), torch.tensor([0, 1])
    value = CrossEntropy(gamma=2)({"logits": logits}, {"label": labels})["cross_entropy"]
    # p of the right class: 0.9 and 0.5 (arXiv:1708.02002, eq. 4).
    assert value.item() == pytest.approx((-(0.1**2) * math.log(0.9) - 0.5**2 * math.log(0.5)) / 2)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_focal_loss_of_several_labels_is_torchvisions(gamma: float) -> None:
    logits, labels = _logits(5, 4), torch.randint(2, (5, 4), generator=torch.Generator().manual_seed(1)).float()
    outputs, targets = {"logits": logits}, {"labels": labels}
    plain = sigmoid_focal_loss(logits, labels, alpha=-1, gamma=gamma, reduction="mean")
    torch.testing.assert_close(BinaryCrossEntropy(gamma=gamma)(outputs, targets)["binary_cross_entropy"], plain)
    # α = 0.25 of the labels that apply, and 0.75 of those that do not.
    weighed = BinaryCrossEntropy(gamma=gamma, positive_weight=0.25 / 0.75)(outputs, targets)["binary_cross_entropy"]
    expected = sigmoid_focal_loss(logits, labels, alpha=0.25, gamma=gamma, reduction="mean")
    torch.testing.assert_close(0.75 * weighed, expected)


def test_a_perfect_prediction_has_a_finite_gradient_with_any_gamma() -> None:
    for gamma in (0.5, 1.0, 2.0):
        logits = torch.tensor([[200.0, -200.0]], requires_grad=True)
        one = CrossEntropy(gamma=gamma)({"logits": logits}, {"label": torch.tensor([0])})["cross_entropy"]
        more = BinaryCrossEntropy(gamma=gamma)({"logits": logits}, {"labels": torch.tensor([[1.0, 0.0]])})
        (gradient,) = torch.autograd.grad(one + more["binary_cross_entropy"], logits)
        assert gradient.isfinite().all()


def test_per_label_weights_are_torchs_pos_weight() -> None:
    logits, labels = _logits(4, 3), torch.tensor([[1.0, 0, 1], [0, 1, 0], [1, 1, 1], [0, 0, 0]])
    loss = BinaryCrossEntropy(TAGS, positive_weight="balanced")({"logits": logits}, {"labels": labels})
    expected = F.binary_cross_entropy_with_logits(logits, labels, pos_weight=torch.tensor([1.0, 49, 60]))
    torch.testing.assert_close(loss["binary_cross_entropy"], expected)


def test_weights_are_no_part_of_what_is_saved() -> None:
    assert not CrossEntropy(RARE, class_weights="balanced").state_dict()
    assert not BinaryCrossEntropy(TAGS, positive_weight="balanced").state_dict()


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (lambda: CrossEntropy(RARE, class_weights={"bat": 2.0}), "class_weights: there is no class 'bat'"),
        (lambda: CrossEntropy(RARE, class_weights={"cat": 0.0}), "class_weights.cat: must be above 0, got 0"),
        (lambda: CrossEntropy(RARE, class_weights="effective", beta=1.0), "beta: must be 0 or more and below 1, got 1"),
        (lambda: CrossEntropy(gamma=-1.0), "gamma: must be 0 or more, got -1"),
        (lambda: BinaryCrossEntropy(gamma=-1.0), "gamma: must be 0 or more, got -1"),
        (lambda: BinaryCrossEntropy(TAGS, positive_weight={"sum": 2.0}), "positive_weight: there is no class 'sum'"),
        (
            lambda: CrossEntropy(DataInfo("label", ("a", "b")), class_weights="balanced"),
            "class_weights: 'balanced' follows how often each class occurs in training, which this data set does not",
        ),
        (
            lambda: CrossEntropy(DataInfo("label", ("a",), ClassCounts((1, 2), (2, 1))), class_weights="balanced"),
            "which this data set does not tell",
        ),
    ],
)  # fmt: skip
def test_options_that_mean_nothing_are_refused(made: Callable[[], object], said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        made()
