from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from mtframe.data import DataInfo, Inputs, Placement, Sample, shares
from mtframe_classification.mixing import mix
from mtframe_classification.targets import Label, Labels
from placed import collated

CLASSES = 7
LABEL = Label(DataInfo("label", tuple("abcdefg")))


def _rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def _flat(count: int) -> Inputs:
    """(B, 3, 8, 8): image i is 30 i everywhere, so that a mixed pixel tells what it is made of."""
    images = (30 * torch.arange(count))[:, None, None, None].expand(-1, 3, 8, 8).to(torch.uint8).contiguous()
    return Inputs(images, [(Placement.scaled((8, 8), (8, 8), (1, 1), sample=n),) for n in range(count)])


def _of(name: str, labels: Tensor) -> list[Sample]:
    return [Sample(torch.empty(0), {name: label}, (8, 8)) for label in labels]


@pytest.mark.parametrize("count", [1, 2, 5, 6])
@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
def test_labels_are_mixed_in_proportion_to_pixels(count: int, kind: str) -> None:
    labels = torch.arange(count)
    alphas = {"mixup": 0.0, "cutmix": 0.0, kind: 1.0}
    mixed = mix(_flat(count), _rng(count), **alphas)
    targets = collated(LABEL, _of("label", labels), mixed)
    # An image alone is its own partner, and nothing is mixed.
    parts = targets.get("probabilities", torch.eye(CLASSES)[:count])
    assert mixed.images.shape == (count, 3, 8, 8)
    assert parts.shape == (count, CLASSES)
    torch.testing.assert_close(parts.sum(1), torch.ones(count))
    # The mean grey is 30 times the mean label, whichever way images were mixed.
    mean = mixed.images.float().mean((1, 2, 3)) / 30
    torch.testing.assert_close(parts @ torch.arange(CLASSES).float(), mean, atol=0.5 / 30 + 1e-4, rtol=0)
    assert torch.equal(targets["label"], labels)
    assert (parts.amax(1) < 1).sum() >= count - 1 - count % 2, "each but one of an odd number is mixed"
    assert [sum(shares(placements)) for placements in mixed.placements] == pytest.approx([1] * count)
    if kind == "cutmix":
        assert set(mixed.images.unique().tolist()) <= set(_flat(count).images.unique().tolist())


def test_both_kinds_are_drawn_where_both_are_on() -> None:
    numbers = [len(image.unique()) for image in mix(_flat(8), _rng(1), mixup=1.0, cutmix=1.0).images]
    assert 1 in numbers, "mixup leaves a flat picture flat"
    assert 2 in numbers, "CutMix puts a rectangle into it"


def test_a_mix_with_an_unknown_is_unknown() -> None:
    # Partners: 0 and 3, 1 and 2.
    mixed = mix(_flat(4), _rng(), mixup=1.0, cutmix=0.0)
    targets = collated(LABEL, _of("label", torch.tensor([-1, 2, 4, 5])), mixed)
    assert targets["label"].tolist() == [-1, 2, 4, -1]
    assert targets["probabilities"].sum(1).tolist() == pytest.approx([0, 1, 1, 0])
    several = torch.tensor([[1, torch.nan], [1, 1], [0, 1], [0, 1]])
    targets = collated(Labels(DataInfo("labels", ("a", "b"))), _of("labels", several), mixed)
    assert targets["labels"].isnan().tolist() == [[False, True], [False, False], [False, False], [False, True]]
    assert ((targets["labels"][:, 0] > 0) & (targets["labels"][:, 0] < 1)).all()
    torch.testing.assert_close(targets["labels"][1:3, 1], torch.ones(2))


def test_an_odd_one_stays_as_it_is() -> None:
    mixed = mix(_flat(3), _rng(), mixup=1.0, cutmix=0.0)
    targets = collated(LABEL, _of("label", torch.tensor([0, 1, -1])), mixed)
    # The one in the middle is its own partner; the other two are made of each other, and one is not known.
    assert torch.equal(mixed.images[1], _flat(3).images[1])
    assert len(mixed.placements[1]) == 1
    assert targets["label"].tolist() == [-1, 1, -1]
    assert targets["probabilities"].tolist() == [[0] * 7, [0, 1, 0, 0, 0, 0, 0], [0] * 7]


def test_randomness_is_the_given_generators_and_the_global_one_is_left_alone() -> None:
    np.random.seed(5)
    expected = np.random.random(3)
    np.random.seed(5)
    first = np.random.random()
    one = mix(_flat(6), _rng(3), mixup=0.5, cutmix=1.0)
    second = np.random.random(2)
    np.testing.assert_array_equal(expected, [first, *second])
    again = mix(_flat(6), _rng(3), mixup=0.5, cutmix=1.0)
    other = mix(_flat(6), _rng(4), mixup=0.5, cutmix=1.0)
    assert torch.equal(one.images, again.images)
    assert not torch.equal(one.images, other.images)
