from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from mtframe_classification.mixing import mix

CLASSES = 7


def _rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def _flat(count: int) -> Tensor:
    """(B, 3, 8, 8): image i is 30 i everywhere, so that a mixed pixel tells what it is made of."""
    return (30 * torch.arange(count))[:, None, None, None].expand(-1, 3, 8, 8).to(torch.uint8).contiguous()


@pytest.mark.parametrize("count", [1, 2, 5, 6])
@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
def test_labels_are_mixed_in_proportion_to_pixels(count: int, kind: str) -> None:
    labels = torch.arange(count)
    alphas = {"mixup": 0.0, "cutmix": 0.0, kind: 1.0}
    images, targets = mix(_flat(count), {"label": labels}, CLASSES, _rng(count), **alphas)
    shares = targets["probabilities"]
    assert images.shape == (count, 3, 8, 8)
    assert shares.shape == (count, CLASSES)
    torch.testing.assert_close(shares.sum(1), torch.ones(count))
    # The mean grey is 30 times the mean label, whichever way images were mixed.
    mean = images.float().mean((1, 2, 3)) / 30
    torch.testing.assert_close(shares @ torch.arange(CLASSES).float(), mean, atol=0.5 / 30 + 1e-4, rtol=0)
    assert torch.equal(targets["label"], labels)
    assert (shares.amax(1) < 1).sum() >= count - 1 - count % 2, "each but one of an odd number is mixed"
    if kind == "cutmix":
        assert set(images.unique().tolist()) <= set(_flat(count).unique().tolist())


def test_both_kinds_are_drawn_where_both_are_on() -> None:
    images, _ = mix(_flat(8), {}, CLASSES, _rng(1), mixup=1.0, cutmix=1.0)
    numbers = [len(image.unique()) for image in images]
    assert 1 in numbers, "mixup leaves a flat picture flat"
    assert 2 in numbers, "CutMix puts a rectangle into it"


def test_a_mix_with_an_unknown_is_unknown() -> None:
    # Partners: 0 and 3, 1 and 2.
    labels = torch.tensor([-1, 2, 4, 5])
    _, targets = mix(_flat(4), {"label": labels}, CLASSES, _rng(), mixup=1.0, cutmix=0.0)
    assert targets["label"].tolist() == [-1, 2, 4, -1]
    assert targets["probabilities"].sum(1).tolist() == pytest.approx([0, 1, 1, 0])
    several = torch.tensor([[1, torch.nan], [1, 1], [0, 1], [0, 1]])
    _, targets = mix(_flat(4), {"labels": several}, 2, _rng(), mixup=1.0, cutmix=0.0)
    assert targets["labels"].isnan().tolist() == [[False, True], [False, False], [False, False], [False, True]]
    assert ((targets["labels"][:, 0] > 0) & (targets["labels"][:, 0] < 1)).all()
    torch.testing.assert_close(targets["labels"][1:3, 1], torch.ones(2))


def test_an_odd_one_stays_as_it_is() -> None:
    images, targets = mix(_flat(3), {"label": torch.tensor([0, 1, -1])}, CLASSES, _rng(), mixup=1.0, cutmix=0.0)
    assert torch.equal(images[0], _flat(1)[0])
    assert targets["label"].tolist() == [0, -1, -1]
    assert targets["probabilities"][0].tolist() == [1, 0, 0, 0, 0, 0, 0]


def test_randomness_is_the_given_generators_and_the_global_one_is_left_alone() -> None:
    np.random.seed(5)
    expected = np.random.random(3)
    np.random.seed(5)
    first = np.random.random()
    one, _ = mix(_flat(6), {}, CLASSES, _rng(3), mixup=0.5, cutmix=1.0)
    second = np.random.random(2)
    np.testing.assert_array_equal(expected, [first, *second])
    again, _ = mix(_flat(6), {}, CLASSES, _rng(3), mixup=0.5, cutmix=1.0)
    other, _ = mix(_flat(6), {}, CLASSES, _rng(4), mixup=0.5, cutmix=1.0)
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
