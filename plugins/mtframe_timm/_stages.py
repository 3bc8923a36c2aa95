"""A network's stages, from the modules that timm's `feature_info` names and the order of registration."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from timm.models import group_parameters
from torch import nn

from mtframe.backbones import Stages, stage_prefixes


def plain_name(name: str) -> str:
    """A name that extractors and complete models share: an extractor may call `stages.0` `stages_0`."""
    return name.replace("_", ".")


def unwrapped(network: nn.Module) -> tuple[str, nn.Module]:
    """The model that a feature extractor holds, and the prefix of its names; else the extractor itself."""
    children = dict(network.named_children())
    if len(children) == 1 and (name := next(iter(children))) in ("model", "body"):
        return f"{name}.", children[name]
    return "", network


def stages_of(network: nn.Module, boundaries: Sequence[str]) -> Stages:
    """Which parameter and module names belong to each stage.

    A stage ends with the module that makes a feature map. What is registered before it belongs to it (so the
    stem to the first stage), what is registered after the last one to the last stage.

    Args:
        network: timm's feature extractor, as it is called in a backbone.
        boundaries: Names of the modules that end a stage, in order, as the complete model calls them.

    Returns:
        For each stage its prefixes. Each parameter, buffer and childless module of `network` is, or is under,
        exactly one.
    """
    outer, model = unwrapped(network)
    ends = [plain_name(name) for name in boundaries]
    stages: dict[str, int] = {}
    following = 0
    for name in _leaves(model, ""):
        within = [i for i, end in enumerate(ends) if f"{plain_name(name)}.".startswith(f"{end}.")]
        stages[name] = within[0] if within else min(following, len(ends) - 1)
        following = within[0] + 1 if within else following
    return stage_prefixes(model, stages, f"network.{outer}")


def layers_of(network: nn.Module, whole: nn.Module) -> Stages | None:
    """Parameter names of each layer, as timm's own layer-wise decay has them (`group_matcher`); None without.

    Args:
        network: timm's feature extractor, as it is called in a backbone.
        whole: The complete model. Of its layers, those that the extractor has nothing of are left out.
    """
    matcher: Any = getattr(whole, "group_matcher", None)
    if matcher is None:
        return None
    outer, model = unwrapped(network)
    number = {
        plain_name(name): layer for name, layer in group_parameters(whole, matcher(coarse=False), reverse=True).items()
    }
    found: dict[str, int] = {}
    for name, _ in model.named_parameters():
        if (layer := number.get(plain_name(name))) is None:
            return None
        found[name] = layer
    return stage_prefixes(model, found, f"network.{outer}")


def _leaves(module: nn.Module, prefix: str) -> Iterator[str]:
    """Names of parameters, buffers and modules with neither these nor children, in order of registration."""
    own = [*module._parameters, *module._buffers]
    yield from (prefix + name for name in own)
    for name, child in module.named_children():
        if child._parameters or child._buffers or child._modules:
            yield from _leaves(child, f"{prefix}{name}.")
        else:
            yield prefix + name
