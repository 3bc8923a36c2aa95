"""Mixup and CutMix, which are timm's, for labels of every kind and batches of every length."""

# Shapes: B images, H height, W width, C classes.

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import torch
import torch.nn.functional as F
from timm.data.mixup import Mixup
from torch import Tensor

from mtframe.data import to_uint8


def mix(
    images: Tensor,
    targets: Mapping[str, Tensor],
    classes: int,
    rng: np.random.Generator,
    *,
    mixup: float,
    cutmix: float,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Mixes each image with its partner from the batch's other end, in a proportion of its own.

    mixup, arXiv:1710.09412: a weighted sum of both; CutMix, arXiv:1905.04899: a rectangle of the other one. An
    image that is mixed with one whose label is unknown has an unknown label.

    Args:
        images: (B, 3, H, W) uint8.
        targets: `label` (B,) long or `labels` (B, C) float, if any.
        classes: C.
        rng: Source of everything random.
        mixup: α of the Beta distribution that proportions of mixup come from; 0 for no mixup.
        cutmix: The same for CutMix. With both, each image draws which it gets.

    Returns:
        The images, and the targets: `labels` mixed; `label` as it was, but -1 where unknown, with `probabilities`
        (B, C), the classes' shares, 0 where unknown.
    """
    mixed, shares_BB = _mixed(images, rng, mixup, cutmix)
    result = dict(targets)
    if "labels" in targets:
        labels_BC = targets["labels"].float()
        unknown_BC = (shares_BB > 0).float() @ labels_BC.isnan().float() > 0
        result["labels"] = (shares_BB @ labels_BC.nan_to_num()).masked_fill(unknown_BC, torch.nan)
    if "label" in targets:
        label_B = targets["label"]
        unknown_B = (shares_BB > 0).float() @ (label_B < 0).float() > 0
        result["label"] = label_B.masked_fill(unknown_B, -1)
        shares_BC = shares_BB @ F.one_hot(label_B.clamp(min=0), classes).float()
        result["probabilities"] = shares_BC.masked_fill(unknown_B[:, None], 0)
    return mixed, result


def _mixed(images: Tensor, rng: np.random.Generator, mixup: float, cutmix: float) -> tuple[Tensor, Tensor]:
    """The mixed images, and the share (B, B) that each has of each original one."""
    count = len(images)
    # timm pairs the first with the last, and refuses odd numbers. One more of the first makes them even, and is
    # its partner: it stays as it is.
    even = torch.cat([images, images[:1]]) if count % 2 else images
    mixer = Mixup(mixup, cutmix, mode="elem", label_smoothing=0.0, num_classes=len(even))
    with _global_generator(rng):
        mixed, shares = mixer(even.float(), torch.arange(len(even)))
    shares[:, 0] += shares[:, count:].sum(1)
    return to_uint8(mixed[:count]), shares[:count, :count]


@contextmanager
def _global_generator(rng: np.random.Generator) -> Iterator[None]:
    """numpy's global generator, which timm draws from, seeded from `rng`, and then as it was."""
    state = np.random.get_state()
    np.random.seed(int(rng.integers(2**32)))
    try:
        yield
    finally:
        np.random.set_state(state)
