"""What a timm model gives and takes, found out on the meta device: no list of names, memory or compute."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import timm
import torch
from timm.models import PretrainedCfg
from timm.models._features import FeatureGetterNet
from torch import Tensor, nn

from mtframe.errors import RecipeError
from mtframe.kinds import FeatureSpec

FINEST = 4
"""Maps of a smaller stride are left out: they cost more than the rest together, and heads do without."""

LISTING = "list them with: mtframe backbones PATTERN"


@dataclass(frozen=True)
class Plan:
    """How to build one model for one size.

    Attributes:
        member: timm's name, with or without a tag.
        arguments: For `timm.create_model`.
        features: The chosen maps, as the network gives them.
        flat: Whether all maps of the model have one stride (a plain ViT); then only the last is taken.
        nhwc: Whether maps are (B, H, W, C).
        whole: The complete model, without memory; checkpoint filters ask it for shapes.
        network: The feature extractor, without memory.
    """

    member: str
    arguments: dict[str, Any]
    features: tuple[FeatureSpec, ...]
    flat: bool
    nhwc: bool
    whole: nn.Module
    network: nn.Module

    def build(self, *, pretrained: bool) -> nn.Module:
        """The network with random weights or the hub's."""
        return timm.create_model(self.member, pretrained=pretrained, **self.arguments)


class _NormedGetter(FeatureGetterNet):
    """With the final norm: tokens have the scale that pretraining gave them, not the residual stream's."""

    def __init__(self, model: nn.Module, **options: Any) -> None:
        super().__init__(model, norm=True, **options)


class _UnfitError(Exception):
    """The model cannot be built for, or run at, a size."""


def pretrained_config(member: str) -> PretrainedCfg:
    """timm's record of a model's weights, input size, mean and std.

    Raises:
        RecipeError: timm has no such model, or no such weights of it.
    """
    architecture, _, tag = member.partition(".")
    if not timm.is_model(architecture):
        near = difflib.get_close_matches(architecture, timm.list_models(), n=3)
        hint = f"did you mean {_either(near)}?" if near else f"is timm {timm.__version__} too old for it?"
        raise RecipeError(f"timm has no model {architecture!r}; {hint} Or {LISTING}")
    if tag:
        members = [
            name for name in timm.list_pretrained(f"{architecture}.*") if name.startswith(f"{architecture}.")
        ]
        if member not in members:
            raise RecipeError(
                f"timm has no weights {member!r}; {architecture!r} has {_either(members) or 'none'}"
            )
    return timm.get_pretrained_cfg(member) or PretrainedCfg()


def plan(member: str, size: int, *, drop_path: float = 0.0) -> Plan:
    """Finds out how to run `member` on `size` × `size` images, and on as many other sizes as it has a way to.

    Args:
        member: timm's name of the model, with or without the tag of its weights.
        size: Pixels.
        drop_path: Probability of stochastic depth at the last block.

    Raises:
        RecipeError: the model does not exist, has no feature maps, or cannot take this size or `drop_path`.
    """
    pretrained_config(member)
    accepted = _accepted(type(_without_memory(member)))
    if drop_path and "drop_path_rate" not in accepted:
        raise RecipeError(f"backbone.drop_path: timm/{member} has no stochastic depth; leave the option out")
    options = {"drop_path_rate": drop_path} if "drop_path_rate" in accepted else {}
    try:
        return _plan(member, size, options | _size_arguments(accepted, size))
    except _UnfitError as error:
        sizes = list(_sizes_near(member, size, accepted))
        takes = f"it takes {_either(sizes)}, for example" if sizes else "nor sizes near it"
        raise RecipeError(
            f"timm/{member} cannot take images of {size}×{size} px; {takes} ({error})"
        ) from error


def _plan(member: str, size: int, arguments: dict[str, Any]) -> Plan:
    try:
        whole = _without_memory(member, **arguments)
    except (AssertionError, RuntimeError, ValueError) as error:
        raise _UnfitError(_reason(error)) from error
    infos = list(getattr(whole, "feature_info", ()))
    if not infos:
        raise RecipeError(f"timm/{member} has no feature maps; choose another model ({LISTING})")
    strides = [int(info["reduction"]) for info in infos]
    flat = len(infos) > 1 and len(set(strides)) == 1
    # Of several maps with one stride, the last has seen the most layers.
    chosen = [i for i, stride in enumerate(strides) if stride >= FINEST and stride not in strides[i + 1 :]]
    arguments = arguments | {"features_only": True, "out_indices": tuple(chosen)}
    if flat and hasattr(whole, "forward_intermediates"):
        arguments["feature_cls"] = _NormedGetter
    try:
        network = _without_memory(member, **arguments)
    except (AssertionError, AttributeError, RuntimeError, TypeError) as error:
        raise RecipeError(
            f"timm/{member} gives no feature maps: {_reason(error)}; choose another model"
        ) from error
    nhwc = getattr(network, "output_fmt", "NCHW") == "NHWC"
    channels = [feature_map.shape[3 if nhwc else 1] for feature_map in _run(network, size)]
    names = [str(infos[i]["module"]) for i in chosen]
    features = tuple(map(FeatureSpec, names, channels, (strides[i] for i in chosen)))
    return Plan(member, arguments, features, flat, nhwc, whole, network)


def _without_memory(member: str, **arguments: Any) -> nn.Module:
    with torch.device("meta"):
        return timm.create_model(member, pretrained=False, **arguments).eval()


def _run(network: nn.Module, size: int) -> list[Tensor]:
    try:
        with torch.no_grad():
            return list(network(torch.empty(2, 3, size, size, device="meta")))
    except (AssertionError, RuntimeError, ValueError) as error:
        raise _UnfitError(_reason(error)) from error


def _accepted(model_class: type) -> set[str]:
    """Keyword arguments of a constructor, and of its bases' as long as it hands `**kwargs` on."""
    names: set[str] = set()
    for base in model_class.__mro__:
        if "__init__" not in vars(base):
            continue
        parameters = inspect.signature(vars(base)["__init__"]).parameters.values()
        names |= {parameter.name for parameter in parameters}
        if all(parameter.kind is not parameter.VAR_KEYWORD for parameter in parameters):
            break
    return names


def _size_arguments(accepted: set[str], size: int) -> dict[str, Any]:
    """Asks for `size`, and for other sizes too where the model has an argument for it."""
    arguments: dict[str, Any] = {"img_size": size}
    if "dynamic_img_size" in accepted:
        arguments |= {"dynamic_img_size": True, "dynamic_img_pad": True}
    else:
        arguments |= {"strict_img_size": False}
    return {name: value for name, value in arguments.items() if name in accepted}


def _sizes_near(member: str, size: int, accepted: set[str]) -> Iterator[int]:
    """Up to three sizes that work, nearest first: the model's own and multiples of 32, 56 and 64."""
    candidates = {pretrained_config(member).input_size[-1]}
    for step in (32, 56, 64):
        candidates |= {max(step, size // step * step), (size // step + 1) * step}
    found = 0
    for candidate in sorted(candidates - {size}, key=lambda other: abs(other - size)):
        try:
            _plan(member, candidate, _size_arguments(accepted, candidate))
        except _UnfitError:
            continue
        yield candidate
        found += 1
        if found == 3:
            return


def _reason(error: Exception) -> str:
    lines = str(error).splitlines()
    return lines[0] if lines else "its layers do not divide this size"


def _either(names: Iterable[object]) -> str:
    return " or ".join(str(name) for name in list(names)[:5])
