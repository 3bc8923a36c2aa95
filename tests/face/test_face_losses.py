from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mtframe.data import DataInfo
from mtframe.errors import DataError, RecipeError
from mtframe.kinds import FeatureSpec
from mtframe_face.adaface import AdaFaceLoss
from mtframe_face.embedding import EmbeddingHead
from mtframe_face.margin_losses import ArcFaceLoss, CosFaceLoss
from mtframe_face.softmax import SoftmaxLoss

MARGIN_LOSSES = (CosFaceLoss, ArcFaceLoss, AdaFaceLoss)
LOSSES = (SoftmaxLoss, *MARGIN_LOSSES)


def _info(classes: int) -> DataInfo:
    return DataInfo("identity", tuple(f"person {label}" for label in range(classes)))


def _head(dim: int) -> EmbeddingHead:
    return EmbeddingHead([FeatureSpec("last", 8, 32)], dim=dim)


def _at_angles(loss: nn.Module, angles: list[float], **centres: Tensor) -> Tensor:
    """The loss of one image at these angles to each class centre, whose class is the first."""
    loss.centres.data = torch.tensor([[math.cos(a), math.sin(a)] for a in angles])
    return loss({"embedding": torch.tensor([[3.0, 0.0]])}, {"label": torch.tensor([0])})["identity"]


def test_cosface_by_hand() -> None:
    loss = CosFaceLoss(_head(2), _info(2), margin=0.35, scale=4.0)
    # Angles 0 and π/2: logits 4 (1 - 0.35) and 0.
    expected = math.log(1 + math.exp(-4 * 0.65))
    assert _at_angles(loss, [0, math.pi / 2]).item() == pytest.approx(expected, rel=1e-5)


def test_arcface_by_hand() -> None:
    loss = ArcFaceLoss(_head(2), _info(2), margin=0.5, scale=4.0)
    # Angles π/3 and π/2: logits 4 cos(π/3 + 0.5) and 0.
    expected = math.log(1 + math.exp(-4 * math.cos(math.pi / 3 + 0.5)))
    assert _at_angles(loss, [math.pi / 3, math.pi / 2]).item() == pytest.approx(expected, rel=1e-5)
    # Beyond π - 0.5 the angle no longer wraps: logit 4 (cos 3 - 0.5 sin 0.5).
    expected = math.log(1 + math.exp(-4 * (math.cos(3) - 0.5 * math.sin(0.5))))
    assert _at_angles(loss, [3, math.pi / 2]).item() == pytest.approx(expected, rel=1e-5)


def test_softmax_by_hand() -> None:
    loss = SoftmaxLoss(_head(2), _info(3))
    loss.classifier.weight.data = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]])
    loss.classifier.bias.data.zero_()
    value = loss({"embedding": torch.tensor([[2.0, 1.0]])}, {"label": torch.tensor([1])})["identity"]
    assert value.item() == pytest.approx(math.log(math.e**2 + math.e + 1) - 1)


@pytest.mark.parametrize("kind", MARGIN_LOSSES)
def test_the_loss_never_falls_as_the_angle_grows(kind: type[CosFaceLoss]) -> None:
    loss = kind(_head(2), _info(2), margin=0.5, scale=8.0)
    values = [_at_angles(loss, [angle, -math.pi / 2]).item() for angle in torch.linspace(0, math.pi, 200).tolist()]
    assert all(later > earlier - 1e-4 for earlier, later in pairwise(values))


@pytest.mark.parametrize("kind", MARGIN_LOSSES)
def test_without_margin_it_is_softmax_over_scaled_cosines(kind: type[CosFaceLoss]) -> None:
    torch.manual_seed(0)
    loss = kind(_head(16), _info(7), margin=0.0, scale=9.0)
    embeddings, labels = torch.randn(5, 16), torch.tensor([0, 3, 6, 1, 1])
    cosines = F.cosine_similarity(embeddings[:, None], loss.centres[None], dim=2)
    value = loss({"embedding": embeddings}, {"label": labels})["identity"]
    assert value.item() == pytest.approx(F.cross_entropy(9 * cosines, labels).item(), rel=1e-5)


@pytest.mark.parametrize("kind", MARGIN_LOSSES)
def test_gradients_are_finite_where_the_angle_is_0_or_pi_or_undefined(kind: type[CosFaceLoss]) -> None:
    loss = kind(_head(2), _info(2), margin=0.5, scale=64.0)
    loss.centres.data = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    embeddings = torch.tensor([[5.0, 0.0], [-5.0, 0.0], [0.0, 0.0]], requires_grad=True)
    value = loss({"embedding": embeddings}, {"label": torch.tensor([0, 0, 0])})["identity"]
    value.backward()
    assert value.isfinite()
    assert embeddings.grad is not None
    assert embeddings.grad.isfinite().all()
    assert loss.centres.grad.isfinite().all()


@pytest.mark.parametrize("kind", LOSSES)
def test_images_of_nobody_take_no_part(kind: type[SoftmaxLoss]) -> None:
    torch.manual_seed(0)
    loss = kind(_head(4), _info(3))
    embeddings = torch.randn(3, 4, requires_grad=True)
    mixed = loss({"embedding": embeddings}, {"label": torch.tensor([-1, 2, -1])})["identity"]
    alone = loss({"embedding": embeddings[1:2]}, {"label": torch.tensor([2])})["identity"]
    assert mixed.item() == pytest.approx(alone.item())
    nobody = loss({"embedding": embeddings}, {"label": torch.full((3,), -1)})["identity"]
    nobody.backward()
    assert nobody.item() == 0
    assert embeddings.grad is not None
    assert embeddings.grad.abs().max() == 0


@pytest.mark.parametrize("kind", LOSSES)
def test_autocast_changes_nothing(kind: type[SoftmaxLoss]) -> None:
    torch.manual_seed(0)
    loss = kind(_head(16), _info(50))
    outputs, targets = {"embedding": torch.randn(8, 16)}, {"label": torch.arange(8)}
    with torch.autocast("cpu", torch.bfloat16):
        low = loss(outputs, targets)["identity"]
    assert low.dtype == torch.float32
    assert low.item() == loss(outputs, targets)["identity"].item()


@pytest.mark.parametrize("kind", MARGIN_LOSSES)
def test_the_margin_grows_over_the_warm_up(kind: type[CosFaceLoss]) -> None:
    loss = kind(_head(4), _info(3), margin=0.4, warmup=0.5)
    margins = []
    for fraction in (0.0, 0.25, 0.5, 0.75, 1.0):
        loss.set_progress(fraction)
        margins.append(loss.current_margin)
    assert margins == pytest.approx([0, 0.2, 0.4, 0.4, 0.4])
    at_once = kind(_head(4), _info(3), margin=0.4, warmup=0.0)
    at_once.set_progress(0.0)
    assert at_once.current_margin == 0.4


def test_the_scale_follows_the_number_of_people() -> None:
    def scale(classes: int, margin: float) -> float:
        return CosFaceLoss(_head(4), _info(classes), margin=margin).scale

    # Without margin the fixed scale of AdaCos, √2 ln(C - 1).
    assert scale(10001, 0.0) == pytest.approx(math.sqrt(2) * math.log(10000), rel=1e-5)
    assert scale(298, 0.2) == pytest.approx(math.log(297) / (math.sqrt(0.5) - 0.2), rel=1e-5)
    assert ArcFaceLoss(_head(4), _info(298), margin=0.3).scale == pytest.approx(
        math.log(297) / math.cos(math.pi / 4 + 0.3), rel=1e-5
    )
    assert scale(2, 0.0) == 8
    assert CosFaceLoss(_head(4), _info(298), scale=30.0).scale == 30


def test_centres_are_trained() -> None:
    torch.manual_seed(0)
    for kind in LOSSES:
        loss = kind(_head(8), _info(4))
        optimizer = torch.optim.SGD(loss.parameters(), lr=0.5)
        outputs, targets = {"embedding": F.normalize(torch.randn(4, 8))}, {"label": torch.arange(4)}
        first = loss(outputs, targets)["identity"].item()
        for _ in range(30):
            optimizer.zero_grad()
            value = loss(outputs, targets)["identity"]
            value.backward()
            optimizer.step()
        assert value.item() < first / 2


def test_options_out_of_range_are_refused() -> None:
    head, info = _head(4), _info(3)
    with pytest.raises(RecipeError, match=r"margin: must be 0 to 1, got 1\.5"):
        CosFaceLoss(head, info, margin=1.5)
    with pytest.raises(RecipeError, match=r"margin: must be 0 to 1\.\d+, got -0\.1"):
        ArcFaceLoss(head, info, margin=-0.1)
    with pytest.raises(RecipeError, match="scale: must be above 0"):
        ArcFaceLoss(head, info, scale=0.0)
    with pytest.raises(RecipeError, match="warmup: must be 0 to 1"):
        CosFaceLoss(head, info, warmup=2)
    with pytest.raises(RecipeError, match="label_smoothing"):
        SoftmaxLoss(head, info, label_smoothing=1.0)
    with pytest.raises(DataError, match="has 1 people; to tell people apart takes at least 2"):
        CosFaceLoss(head, _info(1))
