"""A torchvision model as a backbone."""

# Shapes: B images, C channels, H height, W width.

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor, nn
from torchvision.models import get_model_weights

from mtframe.backbones import describe, freeze_stages, read_weights, run
from mtframe.errors import RecipeError
from mtframe.kinds import FeatureSpec
from mtframe.model import SimplePyramid

from ._plan import build, members, plan, weights_of
from ._weights import fetch, load, read

_IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class TorchvisionBackbone(nn.Module):
    """Any classification model of torchvision: `torchvision/resnet18`, `torchvision/swin_t`, `torchvision/vit_b_16`.

    Which maps it gives is read off its graph (torch.fx): the last map of each stride from 4 on that all of the
    network goes through. A plain ViT, whose only map is that of its last tokens, gets a simple feature pyramid
    with strides 4, 8, 16 and 32 (ViTDet, arXiv:2203.16527), trained with the tasks. Nothing else of the model, such
    as its classifier, is kept.

    Args:
        member: torchvision's name of the model, with or without the tag of its weights:
            `resnet50.IMAGENET1K_V2`. List them with `mtframe backbones 'torchvision/PATTERN'`.
        size: Images will be `size` × `size` pixels. ViT and MaxViT are built for it and take no other; all others
            do.
        restoring: Weights of a run are loaded next, so none are fetched or read here.
        pretrained: Start from the published weights, fetched once.
        weights: Start from this file instead: `.safetensors`, or `.pth` with nothing but tensors in it.
        frozen: Keep the model as it is: its parameters, its BatchNorm statistics, without dropout. The pyramid
            that a plain ViT gets is still trained, as it starts from random weights.
        frozen_stages: Keep this many stages as they are, counted from the input. A stage ends with each map; a plain
            ViT has one per block.
        drop_path: Probability of skipping the last block in training (stochastic depth, arXiv:1603.09382),
            falling linearly to 0 towards the input.

    Attributes:
        features: The maps that `forward` returns, finest first.
        stages: Name prefixes of parameters, buffers and modules per stage; a plain ViT's pyramid is the last
            stage.
        mean: What an RGB image in 0..1 is normalised with.
        std: Likewise.
        size: As given.

    Raises:
        RecipeError: an unknown model or file, a size or an option that the model does not take.
        CheckpointError: `weights` of another architecture.
        MtframeError: the weights cannot be fetched.
    """

    example: ClassVar[str] = "mobilenet_v3_small"

    def __init__(
        self,
        member: str,
        size: int,
        restoring: bool = False,
        *,
        pretrained: bool = True,
        weights: Path | None = None,
        frozen: bool = False,
        frozen_stages: int = 0,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        if not 0 <= drop_path < 1:
            raise RecipeError(f"drop_path: must be 0 or more and below 1, got {drop_path:g}")
        found = plan(member, size, drop_path=drop_path)
        self.member = member
        self.size = size
        whole = build(member, found.arguments, drop_path)
        self.network = found.of(whole)
        if not restoring and weights is not None:
            given = read_weights(Path(weights), f"torchvision/{member}", read)
            load(whole, given, self.network.state_dict(), weights)
        elif not restoring and pretrained:
            load(whole, fetch(weights_of(member), member), self.network.state_dict(), f"torchvision/{member}")
        self._maps = found.maps
        self.pyramid = SimplePyramid(found.features[-1]) if found.flat else None
        self.features: tuple[FeatureSpec, ...] = self.pyramid.features if self.pyramid else found.features
        self.mean, self.std = _normalisation(member)

        stages = found.stages
        self.stages = (*stages, ("pyramid",)) if self.pyramid else stages
        # The pyramid is new, as heads are.
        self.lr_layers = stages
        freeze_stages(self, stages, frozen=frozen, frozen_stages=frozen_stages, name=f"torchvision/{member}")

    def forward(self, images: Tensor) -> list[Tensor]:
        """Normalised images to feature maps.

        Args:
            images: (B, 3, H, W) float.

        Returns:
            One (B, C, H / stride, W / stride) map per entry of `features`; networks without padding give a few
            cells less.

        Raises:
            RecipeError: the model, built for another size, does not take this one.
        """
        height, width = images.shape[-2:]
        values = run(self.network, images, size=self.size, name=f"torchvision/{self.member}")
        maps = [found.to_nchw(value, height, width) for found, value in zip(self._maps, values, strict=True)]
        return self.pyramid(maps[-1]) if self.pyramid else maps

    @classmethod
    def members(cls, pattern: str, *, pretrained: bool = False) -> list[str]:
        """Names of torchvision's classification models that match a shell pattern.

        Args:
            pattern: Such as `resnet*`.
            pretrained: Only those with published weights, each with its tags (`resnet50.IMAGENET1K_V2`).
        """
        names = members(pattern)
        if not pretrained:
            return names
        return [f"{name}.{weights.name}" for name in names for weights in get_model_weights(name)]

    @classmethod
    def describe_member(cls, member: str) -> dict[str, Any]:
        """What a model is, without building it or fetching its weights: see `mtframe.backbones.describe`."""
        weights = weights_of(member)
        size = weights.transforms().crop_size[0] if weights else 224
        found = plan(member, size)
        return describe(
            found.network, found.features, found.stages, flat=found.flat, size=size, pretrained=weights is not None
        )

    @classmethod
    def pretraining(cls, member: str, *, pretrained: bool = True, weights: Path | None = None, **_: Any) -> str | None:
        """What it has learned from before a training with these options, in words; None for nothing."""
        if weights is not None:
            return f"the weights in {Path(weights).name}"
        published = weights_of(member) if pretrained else None
        return f"pretrained weights of torchvision/{member} ({published.name})" if published else None


def _normalisation(member: str) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    weights = weights_of(member)
    if weights is None:
        return _IMAGENET
    transforms = weights.transforms()
    return tuple(transforms.mean), tuple(transforms.std)
