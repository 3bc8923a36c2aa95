from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from mtframe.data import DataInfo
from mtframe.errors import RecipeError
from mtframe.kinds import FeatureSpec
from mtframe_face.embedding import EmbeddingHead
from mtframe_face.identities import balanced_order
from mtframe_face.triplet import TripletLoss


def _loss(**options: Any) -> TripletLoss:
    head = EmbeddingHead([FeatureSpec("last", 8, 32)], dim=2)
    return TripletLoss(head, DataInfo("identity", ("a", "b", "c")), **options)


def _value(loss: TripletLoss, embeddings: torch.Tensor, labels: list[int]) -> torch.Tensor:
    return loss({"embedding": embeddings}, {"label": torch.tensor(labels)})["triplet"]


def _on_circle(*degrees: float) -> torch.Tensor:
    angles = torch.tensor(degrees).deg2rad()
    return torch.stack([angles.cos(), angles.sin()], 1) * 3


def _chord(degrees: float) -> float:
    return 2 * math.sin(math.radians(degrees) / 2)


def test_batch_hard_by_hand() -> None:
    embeddings, labels = _on_circle(0, 20, 50, 200), [0, 0, 1, 0]
    # Farthest of the same, nearest other: 160 and 50, 180 and 30, (none of the same for 50 degrees), 180 and 150.
    violations = [_chord(160) - _chord(50), _chord(180) - _chord(30), _chord(180) - _chord(150)]
    hinge = sum(max(0, v + 0.2) for v in violations) / 3
    soft = sum(math.log(1 + math.exp(v)) for v in violations) / 3
    assert _value(_loss(margin=0.2), embeddings, labels).item() == pytest.approx(hinge, rel=1e-5)
    assert _value(_loss(margin=None), embeddings, labels).item() == pytest.approx(soft, rel=1e-5)


def test_semi_hard_by_hand() -> None:
    embeddings, labels = _on_circle(0, 40, 30, 70, 100), [0, 0, 1, 2, 1]
    # 0 with 40: others at 30, 70, 100, the nearest beyond 40 is 70. 40 with 0: at 10, 30, 60: 60.
    # 30 with 100 (70 apart): others at 30, 10, 40: none beyond, so the farthest, 40. 100 with 30: at 100, 60, 30: 100.
    pairs = [(40, 70), (40, 60), (70, 40), (70, 100)]
    expected = sum(max(0, _chord(same) - _chord(other) + 0.5) for same, other in pairs) / 4
    value = _value(_loss(margin=0.5, mining="semi-hard"), embeddings, labels)
    assert value.item() == pytest.approx(expected, rel=1e-5)


def _slow(embeddings: torch.Tensor, labels: list[int], margin: float, mining: str) -> float:
    """Triplet by triplet."""
    unit = F.normalize(embeddings.double())
    distance = [[max(1e-6, (2 - 2 * a @ b).item()) ** 0.5 for b in unit] for a in unit]
    everybody = range(len(labels))
    losses = []
    for a in everybody:
        same = [distance[a][p] for p in everybody if p != a and labels[p] == labels[a] != -1]
        other = [distance[a][n] for n in everybody if -1 not in (labels[a], labels[n]) and labels[n] != labels[a]]
        if not same or not other:
            continue
        if mining == "batch-hard":
            losses.append(max(0, max(same) - min(other) + margin))
        else:
            beyond = [min([n for n in other if n > p], default=max(other)) for p in same]
            losses += [max(0, p - n + margin) for p, n in zip(same, beyond, strict=True)]
    return sum(losses) / max(1, len(losses))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(-1, 3), min_size=1, max_size=12), st.sampled_from(["batch-hard", "semi-hard"]), st.data())
def test_any_batch_gives_what_trying_all_triplets_gives(labels: list[int], mining: str, data: st.DataObject) -> None:
    torch.manual_seed(data.draw(st.integers(0, 1000)))
    embeddings = torch.randn(len(labels), 5, requires_grad=True)
    value = _value(_loss(margin=0.4, mining=mining), embeddings, labels)
    assert value.item() == pytest.approx(_slow(embeddings.detach(), labels, 0.4, mining), abs=1e-5)
    value.backward()
    assert embeddings.grad is not None
    assert embeddings.grad.isfinite().all()


@pytest.mark.parametrize("mining", ["batch-hard", "semi-hard"])
@pytest.mark.parametrize("labels", [[0, 1, 2, -1], [0, 0, 0, 0], [-1, -1, -1, -1], [0, 0, -1, -1]])
def test_without_a_triplet_it_is_0(mining: str, labels: list[int]) -> None:
    embeddings = torch.randn(4, 2, requires_grad=True)
    value = _value(_loss(mining=mining, margin=None), embeddings, labels)
    value.backward()
    assert value.item() == 0
    assert embeddings.grad is not None
    assert embeddings.grad.abs().max() == 0


@pytest.mark.parametrize("mining", ["batch-hard", "semi-hard"])
def test_equal_embeddings_have_finite_gradients(mining: str) -> None:
    embeddings = torch.ones(4, 2, requires_grad=True)
    _value(_loss(mining=mining), embeddings, [0, 0, 1, 1]).backward()
    assert embeddings.grad is not None
    assert embeddings.grad.isfinite().all()


def test_autocast_changes_nothing_and_there_are_no_weights() -> None:
    loss, embeddings = _loss(), torch.randn(6, 2)
    assert list(loss.state_dict()) == []
    with torch.autocast("cpu", torch.bfloat16):
        low = _value(loss, embeddings, [0, 0, 1, 1, 2, 2])
    assert low.dtype == torch.float32
    assert low.item() == _value(loss, embeddings, [0, 0, 1, 1, 2, 2]).item()


def test_a_margin_out_of_range_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"margin: must be 0 to 2, or null for the soft margin; got 2\.5"):
        _loss(margin=2.5)


def _feed(loss: TripletLoss, labels: list[int], batches: int) -> None:
    for seed in range(batches):
        _value(loss, torch.randn(len(labels), 2, generator=torch.Generator().manual_seed(seed)), labels)


def test_a_training_without_two_pictures_of_a_person_is_ended_with_what_it_needs() -> None:
    with pytest.raises(
        RecipeError, match=r"none of the first 20 batches \(60 faces\) shows a person twice.*per_identity: 4"
    ):
        _feed(_loss(), [0, 1, 2], 20)
    # One batch may lack them by chance; evaluation, and images of nobody known, say nothing.
    _feed(_loss(), [0, 1, 2], 19)
    _feed(_loss().eval(), [0, 1, 2], 30)
    _feed(_loss(), [-1, -1, -1], 30)


def test_a_training_in_which_most_faces_are_alone_is_warned_once(caplog: pytest.LogCaptureFixture) -> None:
    _feed(_loss(), [0, 0, 1, 2, -1, -1], 45)
    assert not caplog.records
    loss = _loss()
    for _ in range(2):
        _feed(loss, [0, 1, 2], 15)
        _feed(loss, [0, 0, 1, 1], 1)
    (record,) = caplog.records
    assert "triplet: 57 of the first 61 faces are the only one of their person" in record.getMessage()
    _feed(_loss(), [0, 0, 1, 1, 2], 30)
    assert len(caplog.records) == 1


def test_people_come_apart_with_p_by_k_batches_and_not_without() -> None:
    """24 people, 4 views each, of numbers that tell people apart and louder ones that do not, through a linear head."""
    rng = np.random.default_rng(0)
    people, noise = (torch.randn(n, 4, generator=torch.Generator().manual_seed(n)) for n in (24, 96))
    labels = np.repeat(np.arange(24), 4)
    views = torch.cat([people[labels], 2 * noise], 1)
    info = DataInfo("identity", tuple(map(str, range(24))))

    def apart(linear: torch.nn.Linear) -> float:
        unit = F.normalize(linear(views).detach())
        same = torch.from_numpy(labels[:, None] == labels)
        alike = unit @ unit.T
        return float(alike[same & ~torch.eye(96, dtype=torch.bool)].mean() - alike[~same].mean())

    torch.manual_seed(0)
    linear = torch.nn.Linear(8, 8, bias=False)
    loss = TripletLoss(EmbeddingHead([FeatureSpec("last", 8, 32)], dim=8), info)
    before = apart(linear)
    optimizer = torch.optim.Adam(linear.parameters(), lr=0.01)
    for _ in range(8):
        order = balanced_order(labels, 4, rng)
        for batch in order.reshape(-1, 32):
            value = loss({"embedding": linear(views[batch])}, {"label": torch.from_numpy(labels[batch])})["triplet"]
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
    assert apart(linear) > before + 0.1
    # One image of each person: nothing to learn from.
    alone = loss({"embedding": linear(views[::4])}, {"label": torch.arange(24)})["triplet"]
    (gradient,) = torch.autograd.grad(alone, linear.weight)
    assert (alone.detach().item(), gradient.abs().max().item()) == (0, 0)
