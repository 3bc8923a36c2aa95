"""Inner products of the tasks' gradients, stage by stage of the backbone."""

# Shapes: T gradients.

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn

from mtframe.model import backbones_in

from ._gram import gram_matrix

ALL = "all"
"""All shared parameters together."""

REST = "rest"
"""Shared parameters outside of the backbone's stages: what a sharing scheme adds of its own."""


def names_by_stage(sharing: nn.Module, names: Iterable[str]) -> dict[str, list[str]]:
    """Names of parameters of a sharing scheme by the backbone's stage, "1" at the input; those of no stage last.

    A scheme may hold several copies of the backbone: stages of one number belong together.
    """
    prefixes = [
        (number, f"{path}.{prefix}." if path else f"{prefix}.")
        for path, backbone in backbones_in(sharing)
        for number, of_stage in enumerate(backbone.stages, 1)
        for prefix in of_stage
    ]
    found: dict[str, list[str]] = {}
    for name in names:
        number = next((number for number, prefix in prefixes if f"{name}.".startswith(prefix)), None)
        found.setdefault(REST if number is None else str(number), []).append(name)
    return dict(sorted(found.items(), key=lambda item: math.inf if item[0] == REST else int(item[0])))


def stage_grams(
    gradients: Sequence[Mapping[str, Tensor | None]], stages: Mapping[str, Sequence[str]]
) -> dict[str, Tensor]:
    """(T, T) float64 inner products by stage, and of `all` first, which is their sum.

    Args:
        gradients: Of each task, by name of a parameter; None stands for zero.
        stages: As of `names_by_stage`.
    """
    grams = {
        stage: gram_matrix([{name: of_task.get(name) for name in names} for of_task in gradients])
        for stage, names in stages.items()
    }
    return {ALL: torch.stack(list(grams.values())).sum(0), **grams}


def cosine(gram: Tensor, a: int, b: int) -> float:
    """The cosine of gradients a and b; NaN if one of them is zero."""
    lengths = math.sqrt(gram[a, a].item()) * math.sqrt(gram[b, b].item())
    return gram[a, b].item() / lengths if lengths > 0 else math.nan
