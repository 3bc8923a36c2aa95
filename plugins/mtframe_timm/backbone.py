"""A timm model as a backbone."""

# Shapes: B images, C channels, H height, W width.

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, ClassVar, Literal

import timm
from torch import Tensor, nn

from mtframe.backbones import describe, freeze_stages, run, unfetched, unpublished
from mtframe.errors import RecipeError
from mtframe.kinds import FeatureSpec
from mtframe.model import SimplePyramid

from ._plan import Plan, plan, pretrained_config
from ._weights import load_weights


class TimmBackbone(nn.Module):
    """Any model of timm that has feature maps: `timm/resnet18`, `timm/vit_small_patch16_dinov3`.

    Which maps it gives follows from timm's `feature_info`: the last map of each stride from 4 on. A model
    whose maps all have one stride (a plain ViT) gets a simple feature pyramid with strides 4, 8, 16 and 32
    (ViTDet, arXiv:2203.16527), trained with the tasks, on its last map, after the final norm. Nothing else of
    the model, such as its classifier, is kept.

    Args:
        member: timm's name of the model, with or without the tag of its weights:
            `vit_small_patch14_dinov2.lvd142m`. List them with `mtframe backbones PATTERN`.
        size: Images will be `size` × `size` pixels. Position embeddings and attention windows are made for
            it; most models take other sizes in `forward` too.
        restoring: Weights of a run are loaded next, so none are fetched or read here.
        pretrained: Start from the published weights, fetched from the hub once.
        weights: Start from this file instead: `.safetensors`, or `.pth` with nothing but tensors in it.
        mean: What these weights' images were normalised with, a value a channel, if not with what timm says.
        std: Likewise.
        colour_order: The order of channels that the weights were trained with: `BGR` for many of OpenCV's users.
        frozen: Keep the model as it is: its parameters, its BatchNorm statistics, without dropout. The
            pyramid that a plain ViT gets is still trained, as it starts from random weights.
        frozen_stages: Keep this many stages as they are, counted from the input. A stage ends with each entry
            of `feature_info`; a plain ViT has one per block.
        drop_path: Probability of skipping the last block in training (stochastic depth, arXiv:1603.09382),
            falling linearly to 0 towards the input.

    Attributes:
        features: The maps that `forward` returns, finest first.
        stages: Name prefixes of parameters, buffers and modules per stage; a plain ViT's pyramid is the last
            stage.
        lr_layers: Likewise per layer, for `train.groups` with `layer_decay`: timm's own, finer than stages; the
            pyramid, which is new, is in none.
        mean: What an image in 0..1 is normalised with.
        std: Likewise.
        colour_order: As given; so is `size`.

    Raises:
        RecipeError: an unknown model or file, a size or an option that the model does not take.
        CheckpointError: `weights` of another architecture.
        MtframeError: the hub cannot be reached.
    """

    # timm's own for tests: a whole residual network of half a million parameters.
    example: ClassVar[str] = "test_resnet"

    def __init__(
        self,
        member: str,
        size: int,
        restoring: bool = False,
        *,
        pretrained: bool = True,
        weights: Path | None = None,
        mean: tuple[float, float, float] | None = None,
        std: tuple[float, float, float] | None = None,
        colour_order: Literal["RGB", "BGR"] = "RGB",
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
        self.network = _build(found, pretrained=pretrained and weights is None and not restoring)
        if weights is not None and not restoring:
            load_weights(self.network, found.whole, Path(weights), member)
        self._nhwc = found.nhwc
        self.pyramid = SimplePyramid(found.features[-1]) if found.flat else None
        self.features: tuple[FeatureSpec, ...] = self.pyramid.features if self.pyramid else found.features
        config = pretrained_config(member)
        self.mean: tuple[float, float, float] = mean or tuple(config.mean)
        self.std: tuple[float, float, float] = std or tuple(config.std)
        self.colour_order = colour_order
        if min(self.std) <= 0:
            raise RecipeError(f"std: must be above 0, got {list(self.std)}")

        stages = found.stages
        self.stages = (*stages, ("pyramid",)) if self.pyramid else stages
        self.lr_layers = found.layers
        freeze_stages(self, stages, frozen=frozen, frozen_stages=frozen_stages, name=f"timm/{member}")

    def forward(self, images: Tensor) -> list[Tensor]:
        """Normalised images to feature maps.

        Args:
            images: (B, 3, H, W) float.

        Returns:
            One (B, C, H / stride, W / stride) map per entry of `features`, rounded up where a stride does not
            divide.

        Raises:
            RecipeError: the model, built for another size, does not take this one.
        """
        maps = run(self.network, images, size=self.size, name=f"timm/{self.member}")
        if self._nhwc:
            maps = [feature_map.permute(0, 3, 1, 2) for feature_map in maps]
        return self.pyramid(maps[-1]) if self.pyramid else list(maps)

    @classmethod
    def members(cls, pattern: str, *, pretrained: bool = False) -> list[str]:
        """Names of timm's models that match a shell pattern.

        Args:
            pattern: Such as `resnet*`.
            pretrained: Only those with published weights, each with its tags (`resnet18.a1_in1k`).
        """
        return timm.list_models(pattern, pretrained=pretrained)

    @classmethod
    def pretraining(cls, member: str, *, pretrained: bool = True, weights: Path | None = None, **_: Any) -> str | None:
        """What it has learned from before a training with these options, in words; None for nothing."""
        if weights is not None:
            return f"the weights in {Path(weights).name}"
        return f"pretrained weights of timm/{member}" if pretrained else None

    @classmethod
    def describe_member(cls, member: str) -> dict[str, Any]:
        """What a model is, without building it or fetching its weights: see `mtframe.backbones.describe`."""
        config = pretrained_config(member)
        size = int(config.input_size[-1])
        found = plan(member, size)
        return describe(
            found.network, found.features, found.stages, flat=found.flat, size=size, pretrained=bool(config.has_weights)
        )


def _build(found: Plan, *, pretrained: bool) -> nn.Module:
    if not pretrained:
        return found.build(pretrained=False)
    if not pretrained_config(found.member).has_weights:
        raise unpublished("timm", found.member)
    try:
        return found.build(pretrained=True)
    except Exception as error:
        # Each of timm's sources raises its own errors. The model itself has just been built without weights.
        lines = re.sub(r"\s+", " ", f"{type(error).__name__}: {error}")
        raise unfetched(f"timm/{found.member}", lines[:200]) from error
