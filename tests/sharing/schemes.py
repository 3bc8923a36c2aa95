"""Every sharing scheme, over small backbones, for tests."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from mtframe.kinds import FeatureSpec
from mtframe.model import Layers, Network
from mtframe_sharing.adapters import Adapters, FiLM
from mtframe_sharing.cross_stitch import CrossStitch
from mtframe_sharing.mmoe import MMoE
from mtframe_sharing.mtan import MTAN
from test_gradients import Staged, Step

# The class and options with which it is tried.
SCHEMES: dict[str, tuple[Any, dict[str, Any]]] = {
    "network": (Network, {}),
    "layers": (Layers, {"shared": 1}),
    "cross-stitch": (CrossStitch, {}),
    "mtan": (MTAN, {}),
    "adapters": (Adapters, {}),
    "film": (FiLM, {}),
    "mmoe": (MMoE, {"experts": 2}),
}


def step_of(name: str, backbone: nn.Module | None = None, **options: Any) -> Step:
    """A model with this scheme and a batch a task."""
    scheme, own = SCHEMES[name]
    return Step(backbone or Staged(), sharing=scheme, **own, **options)


def shaken(module: nn.Module) -> Any:
    """With other weights: what begins at 0 hides what it does."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return module.eval()


def images(*counts: int, size: int = 32) -> dict[str, Tensor]:
    """Of tasks a, b, ..., so many each."""
    generator = torch.Generator().manual_seed(0)
    return {
        task: torch.randn(count, 3, size, size, generator=generator) for task, count in zip("abc", counts, strict=False)
    }


class ChannelsLast(nn.Module):
    """Two stages whose maps are (B, H, W, C), as Swin's are inside."""

    stages = (("stem", "embed"), ("merge",))

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 4, 4)
        self.embed = nn.Sequential(nn.LayerNorm(6), nn.Linear(6, 8))
        self.merge = nn.Sequential(nn.Linear(8, 10), nn.GELU())
        self.features = (FeatureSpec("embed", 8, 4), FeatureSpec("merge", 10, 8))

    def forward(self, images: Tensor) -> list[Tensor]:
        first = self.embed(self.stem(images).permute(0, 2, 3, 1))
        second = self.merge(first[:, ::2, ::2])
        return [first.permute(0, 3, 1, 2), second.permute(0, 3, 1, 2)]
