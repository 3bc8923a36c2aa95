from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from mtframe.data import DataInfo
from mtframe.errors import RecipeError
from mtframe.kinds import FeatureSpec
from mtframe_face.adaface import AdaFaceLoss
from mtframe_face.embedding import EmbeddingHead


def _loss(classes: int = 2, dim: int = 2, **options: float) -> AdaFaceLoss:
    info = DataInfo("identity", tuple(map(str, range(classes))))
    return AdaFaceLoss(EmbeddingHead([FeatureSpec("last", 8, 32)], dim=dim), info, **options)


@pytest.mark.parametrize(
    ("length", "quality"),
    # About a mean of 10 and a deviation of 2, times h = 0.5: q = (length - 10) / 4, cut to -1..1.
    [(10.0, 0.0), (12.0, 0.5), (9.0, -0.25), (40.0, 1.0), (0.5, -1.0)],
)
@pytest.mark.parametrize("angle", [0.6, 1.5])
def test_by_hand(length: float, quality: float, angle: float) -> None:
    loss = _loss(margin=0.4, concentration=0.5, scale=4.0).eval()
    loss.length_mean.fill_(10.0)
    loss.length_std.fill_(2.0 - 1e-3)
    loss.centres.data = torch.tensor([[math.cos(angle), math.sin(angle)], [0.0, -1.0]])
    value = loss({"embedding": torch.tensor([[length, 0.0]])}, {"label": torch.tensor([0])})["identity"]
    # Equation 12: s (cos(θ - m q) - (m q + m)); the other centre is at a right angle.
    logit = 4 * (math.cos(angle - 0.4 * quality) - (0.4 * quality + 0.4))
    assert value.item() == pytest.approx(math.log(1 + math.exp(-logit)), rel=1e-5)


def test_an_angle_is_not_turned_beyond_0_and_falls_on_beyond_pi() -> None:
    loss = _loss(margin=0.4, scale=4.0)
    near = torch.tensor([[math.cos(0.1)], [1.0]])
    # q = 1: cos(0.1 - 0.4) would be less than cos 0, though 0.1 is nearer than 0.4.
    assert loss._harder(near, 0.4, torch.ones(2, 1)).flatten().tolist() == pytest.approx([1 - 0.8, 1 - 0.8])
    cosines = torch.linspace(-1, 1, 401)[:, None]
    for quality in (-1.0, -0.3, 0.0, 0.4, 1.0):
        harder = loss._harder(cosines, 0.4, torch.full((401, 1), quality)).flatten()
        assert (harder.diff() > -1e-3).all(), quality


def test_lengths_average_over_steps_and_only_over_people_of_the_training() -> None:
    loss = _loss(dim=3)
    batches = [torch.tensor([[3.0, 0, 0], [0, 5.0, 0], [90.0, 0, 0]]), torch.tensor([[7.0, 0, 0], [0, 0, 7.0]])]
    loss({"embedding": batches[0]}, {"label": torch.tensor([0, 1, -1])})
    # The first step's own: lengths 3 and 5.
    assert (loss.length_mean.item(), loss.length_std.item()) == pytest.approx((4.0, math.sqrt(2)))
    loss({"embedding": batches[1]}, {"label": torch.tensor([0, 1])})
    assert (loss.length_mean.item(), loss.length_std.item()) == pytest.approx((5.5, math.sqrt(2) / 2))
    loss.steps.fill_(5000)
    loss({"embedding": batches[0]}, {"label": torch.tensor([0, 1, -1])})
    assert loss.length_mean.item() == pytest.approx(5.5 + 0.01 * (4 - 5.5))
    before = loss.length_mean.item()
    loss({"embedding": batches[1]}, {"label": torch.tensor([0, -1])})
    loss.eval()({"embedding": batches[1]}, {"label": torch.tensor([0, 1])})
    assert loss.length_mean.item() == before


def test_the_averages_are_saved_and_no_gradient_flows_through_the_quality() -> None:
    loss = _loss(dim=4, classes=3)
    embeddings = torch.randn(6, 4, requires_grad=True)
    loss({"embedding": embeddings}, {"label": torch.tensor([0, 1, 2, 0, 1, 2])})["identity"].backward()
    assert {"length_mean", "length_std", "steps"} <= loss.state_dict().keys()
    # Only the direction of an embedding matters to the loss: its gradient stands at a right angle to it.
    assert embeddings.grad is not None
    assert F.cosine_similarity(embeddings, embeddings.grad).abs().max() < 1e-5


def test_options_out_of_range_are_refused() -> None:
    with pytest.raises(RecipeError, match="concentration: must be above 0, got 0"):
        _loss(concentration=0.0)
    with pytest.raises(RecipeError, match=r"margin: must be 0 to 1, got 1\.1"):
        _loss(margin=1.1)
