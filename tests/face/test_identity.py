"""Labels of people, and what is done with embeddings."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from mtframe.data import DataInfo, Placement, Sample
from mtframe.kinds import Embeds
from mtframe.marks import Text
from mtframe_face.identity import Identity

IDENTITY = Identity(DataInfo("identity", ("ann", "bob")))
PLACE = Placement.scaled((10, 10), (20, 20), (2, 2))


def sample(label: int, id: str = "") -> Sample:
    return Sample(torch.empty(0), {"label": torch.tensor(label), "landmarks": torch.zeros(5, 2)}, (10, 10), id=id)


def test_a_label_is_who_it_is_and_a_stranger_is_not_known() -> None:
    placed = [IDENTITY.placed([(sample(label).target, PLACE.flipped())]) for label in (1, -1, 0)]
    assert [label.keys() for label in placed] == [{"label"}] * 3
    targets = IDENTITY.collate([*placed, IDENTITY.unknown()])
    assert targets["label"].tolist() == [1, -1, 0, -1]
    assert IDENTITY.known(targets).tolist() == [True, False, True, False]
    assert not IDENTITY.mixes


def test_embeddings_of_views_are_added_and_compared() -> None:
    prediction = {"embedding": F.normalize(torch.tensor([3.0, 4.0]), dim=0)}
    assert isinstance(IDENTITY, Embeds)
    assert torch.equal(IDENTITY.embedding(prediction), prediction["embedding"])
    other = {"embedding": torch.tensor([0.0, 1.0])}
    merged = IDENTITY.restored([(prediction, PLACE), (other, PLACE.flipped())])["embedding"]
    torch.testing.assert_close(merged, torch.tensor([0.6, 1.8]) / math.hypot(0.6, 1.8))
    assert IDENTITY.plain(prediction) == {"embedding": prediction["embedding"].tolist()}


def test_people_are_named_on_pictures_and_embeddings_show_nothing() -> None:
    assert IDENTITY.label_marks({"label": torch.tensor(1)}) == [Text("bob")]
    assert IDENTITY.label_marks(IDENTITY.unknown()) == IDENTITY.marks({"embedding": torch.ones(1)}) == []


def test_who_knows_everybody_tells_them_apart_strangers_too() -> None:
    samples = [sample(0), sample(0), sample(1), sample(-1, "val/kim/1.jpg"), sample(-1, "val/kim/2.jpg"),
               sample(-1, "val/lea/1.jpg")]  # fmt: skip
    perfect = [IDENTITY.perfect(one) for one in samples]
    for one in perfect:
        IDENTITY.check_prediction(one, (10, 10))
    alike = torch.stack([one["embedding"] for one in perfect]) @ torch.stack([one["embedding"] for one in perfect]).T
    same = torch.tensor([[True, True, False, False, False, False]] * 2 + [[False] * 6] * 4)
    same[2, 2] = same[5, 5] = True
    same[3:5, 3:5] = True
    assert alike[same].min() > 0.999
    assert alike[~same].abs().max() < 0.5
    assert IDENTITY.rightness(perfect, samples) == pytest.approx(1, abs=0.35)
    flat = [{"embedding": torch.tensor([1.0, 0])}] * 6
    assert IDENTITY.rightness(flat, samples) == 0
    assert IDENTITY.rightness(flat[:2], samples[:2]) is None


def test_what_is_no_label_and_no_prediction_is_told() -> None:
    for wrong in ({}, {"label": torch.tensor(2)}, {"label": torch.tensor([0])}, {"label": torch.tensor(0.0)}):
        with pytest.raises(ValueError, match="expected 'label', a whole number of -1 to 1, got"):
            IDENTITY.check_label(wrong, (10, 10))
    with pytest.raises(ValueError, match=r"expected 'embedding' \(D,\), got none"):
        IDENTITY.check_prediction({}, (10, 10))
    with pytest.raises(ValueError, match="expected an embedding of unit length, got length 5"):
        IDENTITY.check_prediction({"embedding": torch.tensor([3.0, 4.0])}, (10, 10))
