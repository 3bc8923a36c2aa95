"""A mixture of shared experts, which each task weighs for each image."""

# Shapes: B images of a task, C channels, E experts, H height, W width.

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mtframe.errors import RecipeError
from mtframe.kinds import FeatureSpec
from mtframe.model import BatchNormPolicy, Network, by_task, group_norm


class MMoE(nn.Module):
    """Every task runs through the whole backbone and through all experts, in one pass, and mixes what these say.

    Ma et al., Modeling Task Relationships in Multi-task Learning with Multi-gate Mixture-of-Experts, KDD 2018, eqs. 7
    and 8: of the shared maps x, task t gets Σ_e g_te(x) f_e(x) with g_t(x) = softmax(W_t x). Here an expert f_e is a
    convolution of 3 × 3 for each level of the maps, with GroupNorm and ReLU, and W_t sees the mean of the coarsest map,
    so that an image has one set of weights, in all levels.

    Args:
        backbone: A backbone (see `mtframe.kinds.Backbone`).
        groups: Task names by pass: the tasks of a group always have images of one size.
        experts: How many experts, 1 or more.
        batchnorm: What BatchNorm does where sizes differ, as in `network`.

    Raises:
        RecipeError: `experts` is below 1.
    """

    def __init__(
        self,
        backbone: Any,
        groups: Sequence[Sequence[str]],
        *,
        experts: int = 4,
        batchnorm: BatchNormPolicy = "per-task",
    ) -> None:
        super().__init__()
        if experts < 1:
            raise RecipeError(f"experts: must be 1 or more, got {experts}")
        self.trunk = Network(_WithExperts(backbone, experts), groups, batchnorm=batchnorm)
        self.features: tuple[FeatureSpec, ...] = backbone.features
        tasks = [task for group in groups for task in group]
        self.gates = by_task({task: nn.Linear(self.features[-1].channels, experts, bias=False) for task in tasks})

    def forward(
        self, images: Mapping[str, Tensor], lenders: Mapping[str, str] | None = None
    ) -> dict[str, list[Tensor]]:
        """Normalised images (B, 3, H, W) by task to one (B, C, H / stride, W / stride) map per feature, by task.

        Tasks in `lenders` weigh what the experts say of another task's images by a gate of their own.
        """
        return {task: self._mixed(task, maps) for task, maps in self.trunk(images, lenders).items()}

    def shared_parameters(self) -> Iterator[nn.Parameter]:
        """Those of the backbone and of the experts."""
        return self.trunk.parameters()

    def _mixed(self, task: str, maps: Sequence[Tensor]) -> list[Tensor]:
        coarsest, *said = maps
        # fp32: a softmax in bf16 has steps of a percent.
        weights_BE = self.gates[task](coarsest.mean((2, 3))).float().softmax(1).to(coarsest.dtype)
        each = weights_BE.shape[1]
        levels = [said[first : first + each] for first in range(0, len(said), each)]
        return [_weighted(level, weights_BE) for level in levels]


class _WithExperts(nn.Module):
    """A backbone that gives its coarsest map, and what each expert makes of each map: level by level, E maps each."""

    def __init__(self, backbone: Any, experts: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.features = backbone.features
        self.experts = nn.ModuleList(
            nn.ModuleList(_expert(spec.channels) for spec in self.features) for _ in range(experts)
        )

    def forward(self, images: Tensor) -> list[Tensor]:
        """Images of all tasks (B, 3, H, W) to 1 + levels × E maps."""
        maps = list(self.backbone(images))
        experts: Any = self.experts
        return [maps[-1], *(expert[level](shared) for level, shared in enumerate(maps) for expert in experts)]


def _expert(channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, channels, 3, padding=1, bias=False), group_norm(channels), nn.ReLU(inplace=True)
    )


def _weighted(level: Sequence[Tensor], weights_BE: Tensor) -> Tensor:
    """E maps (B, C, H, W) of one level to their sum, weighed for each image."""
    terms = [said * weight[:, None, None, None] for said, weight in zip(level, weights_BE.unbind(1), strict=True)]
    mixed: Tensor = torch.stack(terms).sum(0) if len(terms) > 1 else terms[0]
    return mixed
