"""What a timm model gives and takes, found out on the meta device: no list of names, memory or compute."""

from __future__ import annotations

import inspect
import threading
from collections import OrderedDict
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import timm
import torch
from timm.models import PretrainedCfg
from timm.models._features import FeatureGetterNet, FeatureHooks
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from mtframe.backbones import FINEST, Stages, UnfitError, at_size, either, perhaps_meant, reason
from mtframe.errors import RecipeError
from mtframe.kinds import FeatureSpec

from ._stages import layers_of, stages_of

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
        whole: The complete model, without weights; checkpoint filters ask it for shapes.
        network: The feature extractor, without weights.
        unreached: Names of its parameters that no map depends on.
    """

    member: str
    arguments: dict[str, Any]
    features: tuple[FeatureSpec, ...]
    flat: bool
    nhwc: bool
    whole: nn.Module
    network: nn.Module
    unreached: tuple[str, ...]

    @property
    def stages(self) -> Stages:
        """The names of each stage's parts in a backbone that has the network in `network`."""
        info: Any = self.network.feature_info
        return stages_of(self.network, [str(entry["module"]) for entry in info.info])

    @property
    def layers(self) -> Stages:
        """Likewise of each layer; the stages where timm does not say what its layers are."""
        return layers_of(self.network, self.whole) or self.stages

    def build(self, *, pretrained: bool) -> nn.Module:
        """The network with random weights or the hub's; what no map depends on is not trained."""
        network = timm.create_model(self.member, pretrained=pretrained, **self.arguments)
        for name in self.unreached:
            network.get_parameter(name).requires_grad_(False)
        for module in network.modules():
            for hooks in vars(module).values():
                if isinstance(hooks, FeatureHooks):
                    hooks._feature_outputs = _ByThread()
        return network


class _ByThread(dict[Any, Any]):
    """What timm's hooks have collected in a pass, by device: each thread has its own, or would get another's maps."""

    def __getitem__(self, device: torch.device) -> OrderedDict[str, Tensor]:
        collected: OrderedDict[str, Tensor] = self.setdefault((threading.get_ident(), device), OrderedDict())
        return collected

    def __setitem__(self, device: torch.device, nothing: OrderedDict[str, Tensor]) -> None:
        # It has been read. Nothing is kept for a thread that may be gone.
        self.pop((threading.get_ident(), device), None)


class _NormedGetter(FeatureGetterNet):
    """With the final norm: tokens have the scale that pretraining gave them, not the residual stream's."""

    def __init__(self, model: nn.Module, **options: Any) -> None:
        super().__init__(model, norm=True, **options)


class _NoInitialisation(TorchFunctionMode):
    """Skips filling tensors, which without memory does nothing and takes most of the time."""

    FILLING = frozenset({"normal_", "uniform_", "erfinv_", "mul_", "add_", "clamp_", "fill_", "zero_", "copy_"})

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if args and getattr(func, "__name__", "") in self.FILLING:
            return args[0]
        return func(*args, **(kwargs or {}))


def pretrained_config(member: str) -> PretrainedCfg:
    """timm's record of a model's weights, input size, mean and std.

    Raises:
        RecipeError: timm has no such model, or no such weights of it.
    """
    architecture, _, tag = member.partition(".")
    if not timm.is_model(architecture):
        hint = perhaps_meant(architecture, timm.list_models(), f"timm {timm.__version__}")
        raise RecipeError(f"timm has no model {architecture!r}; {hint} Or {LISTING}")
    if tag:
        members = [name for name in timm.list_pretrained(f"{architecture}.*") if name.startswith(f"{architecture}.")]
        if member not in members:
            raise RecipeError(f"timm has no weights {member!r}; {architecture!r} has {either(members) or 'none'}")
    return timm.get_pretrained_cfg(member) or PretrainedCfg()


@torch.enable_grad()
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
    accepted = _accepted(_model_class(member))
    if drop_path and "drop_path_rate" not in accepted:
        raise RecipeError(f"backbone.drop_path: timm/{member} has no stochastic depth; leave the option out")
    options = {"drop_path_rate": drop_path} if "drop_path_rate" in accepted else {}
    # The model's own size, and multiples of what layers divide images by.
    sizes = {pretrained_config(member).input_size[-1]}
    sizes |= {max(step, size // step * step + more) for step in (32, 56, 64) for more in (0, step)}
    return at_size(
        f"timm/{member}", size, lambda side: _plan(member, side, options | _size_arguments(accepted, side)), sizes
    )


def _plan(member: str, size: int, arguments: dict[str, Any]) -> Plan:
    try:
        return _plan_on("meta", member, size, arguments)
    except (UnfitError, NotImplementedError) as error:
        # A few models, and more in older versions of timm, compute with values that the meta device has not.
        if "meta" not in str(error).lower():
            raise
        return _plan_on("cpu", member, size, arguments)


def _plan_on(device: str, member: str, size: int, arguments: dict[str, Any]) -> Plan:
    try:
        whole = _create(device, member, **arguments)
    except (AssertionError, RuntimeError, ValueError) as error:
        raise UnfitError(_said(error)) from error
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
        network = _create(device, member, **arguments)
    except (AssertionError, AttributeError, RuntimeError, TypeError) as error:
        raise RecipeError(f"timm/{member} gives no feature maps: {_said(error)}; choose another model") from error
    nhwc = getattr(network, "output_fmt", "NCHW") == "NHWC"
    maps = _run(network, torch.empty(2, 3, size, size, device=device))
    channels = [feature_map.shape[3 if nhwc else 1] for feature_map in maps]
    names = [str(infos[i]["module"]) for i in chosen]
    features = tuple(map(FeatureSpec, names, channels, (strides[i] for i in chosen)))
    return Plan(member, arguments, features, flat, nhwc, whole, network, _unreached(network, maps))


def _create(device: str, member: str, **arguments: Any) -> nn.Module:
    with torch.device(device), _NoInitialisation() if device == "meta" else nullcontext():
        return timm.create_model(member, pretrained=False, **arguments).eval()


def _model_class(member: str) -> type:
    try:
        return type(_create("meta", member))
    except RuntimeError:
        return type(_create("cpu", member))


def _run(network: nn.Module, images: Tensor) -> list[Tensor]:
    try:
        return list(network(images))
    except (AssertionError, RuntimeError, ValueError) as error:
        raise UnfitError(_said(error)) from error


def _unreached(network: nn.Module, maps: list[Tensor]) -> tuple[str, ...]:
    trained = {name: parameter for name, parameter in network.named_parameters() if parameter.requires_grad}
    total = torch.stack([feature_map.sum() for feature_map in maps]).sum()
    gradients = torch.autograd.grad(total, list(trained.values()), allow_unused=True)
    return tuple(name for name, gradient in zip(trained, gradients, strict=True) if gradient is None)


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


def _said(error: Exception) -> str:
    return reason(error) if str(error) else "its layers do not divide this size"
