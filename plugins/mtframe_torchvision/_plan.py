"""What a torchvision model gives and takes, found out on the meta device, without memory or weights."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any, get_type_hints

import torch
import torchvision
from torch import fx, nn
from torch.overrides import TorchFunctionMode
from torchvision.models import WeightsEnum, get_model, get_model_builder, get_model_weights, list_models
from torchvision.ops import StochasticDepth

from mtframe.backbones import Stages, UnfitError, at_size, either, perhaps_meant, reason, stage_prefixes
from mtframe.errors import RecipeError
from mtframe.kinds import FeatureSpec

from ._maps import Map, block_ends, choose_maps, cut, record, stage_of_targets, trace

LISTING = "list them with: mtframe backbones 'torchvision/PATTERN'"

# What constructors call the image's side, and how they want it.
_SIZES = {"image_size": lambda size: size, "input_size": lambda size: (size, size)}

# Side branches that only training for classification needs; initialisations that take minutes; and the published
# weights' own normalisation inside the network, so that outside it is everybody's.
_PLAIN = {"aux_logits": False, "init_weights": False, "transform_input": True}

# A side that every stride divides: two images this large and twice as large tell strides exactly.
_PROBE = 512


@dataclass(frozen=True)
class Plan:
    """How to build one model for one size.

    Attributes:
        member: torchvision's name, with or without a tag.
        arguments: For `get_model`.
        maps: The feature maps, finest first.
        flat: Whether there is a single map, of a plain ViT.
        ends: Nodes with which a stage ends: the maps, or the blocks of a plain ViT.
        network: What computes them, on the meta device.
    """

    member: str
    arguments: dict[str, Any]
    maps: tuple[Map, ...]
    flat: bool
    ends: tuple[str, ...]
    network: fx.GraphModule

    @property
    def features(self) -> tuple[FeatureSpec, ...]:
        """The maps, as a backbone declares them."""
        return tuple(FeatureSpec(found.name, found.channels, found.stride) for found in self.maps)

    @property
    def stages(self) -> Stages:
        """The names of each stage's parts in a backbone that has the network in `network`."""
        return stage_prefixes(self.network, stage_of_targets(self.network.graph, self.ends), "network.")

    def of(self, model: nn.Module) -> fx.GraphModule:
        """What of a model the maps come from; shares its modules."""
        network = trace(model)
        cut(network, tuple(found.node for found in self.maps))
        return network


class _OnMeta(TorchFunctionMode):
    """Weights without memory. `torch.device("meta")` would take the numbers too that widths are computed from."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        options = dict(kwargs or {})
        if func in (torch.empty, torch.zeros, torch.ones):
            options["device"] = "meta"
        return func(*args, **options)


def members(pattern: str = "*") -> list[str]:
    """Names of torchvision's classification models that match a shell pattern."""
    return list_models(module=torchvision.models, include=pattern)


def weights_of(member: str) -> WeightsEnum | None:
    """The published weights that a name stands for: those of its tag, else torchvision's default; None if none.

    Raises:
        RecipeError: torchvision has no such classification model, or no such weights of it.
    """
    architecture, _, tag = member.partition(".")
    if architecture in set(list_models()) - set(members()):
        raise RecipeError(
            f"torchvision's {architecture!r} is a model of {_package(architecture)}; only the classification models of "
            f"torchvision.models are backbones; {LISTING}"
        )
    if architecture not in members():
        hint = perhaps_meant(architecture, members(), f"torchvision {torchvision.__version__}")
        raise RecipeError(f"torchvision has no classification model {architecture!r}; {hint} Or {LISTING}")
    known = get_model_weights(architecture).__members__
    if tag and tag not in known:
        raise RecipeError(f"torchvision has no weights {member!r}; {architecture!r} has {either(known) or 'none'}")
    return known.get(tag or "DEFAULT")


@torch.enable_grad()
def plan(member: str, size: int, *, drop_path: float = 0.0) -> Plan:
    """Finds out which maps `member` gives, and how to build it for `size` × `size` images.

    Args:
        member: torchvision's name of the model, with or without the tag of its weights.
        size: Pixels.
        drop_path: Probability of stochastic depth at the last block.

    Raises:
        RecipeError: the model does not exist, cannot be traced, has no feature maps, or cannot take this size or
            `drop_path`.
    """
    weights_of(member)
    # Multiples of what layers divide images by.
    sizes = {max(step, size // step * step + more) for step in (14, 32, 224) for more in (0, step)}
    found = at_size(f"torchvision/{member}", size, lambda side: _plan(member, side), sizes)
    if drop_path and not _skipping(found.network):
        raise RecipeError(f"backbone.drop_path: torchvision/{member} has no stochastic depth; leave the option out")
    return found


def build(member: str, arguments: dict[str, Any], drop_path: float) -> nn.Module:
    """The whole model with random weights."""
    model = get_model(member.partition(".")[0], weights=None, **arguments)
    layers = _skipping(model)
    for number, layer in enumerate(layers):
        # Not torchvision's own rates, up to 0.5: those are for hundreds of epochs on ImageNet.
        layer.p = drop_path * number / max(1, len(layers) - 1)
    return model


def _plan(member: str, size: int) -> Plan:
    arguments = _arguments(member, size)
    network = _traced(member, arguments)
    maps = _find_maps(member, size, network)
    if not maps:
        raise RecipeError(f"torchvision/{member} has no feature maps; choose another model ({LISTING})")
    nodes = tuple(found.node for found in maps)
    cut(network, nodes)
    # The maps were found with other images where the model takes any.
    values = _run(network, size)
    flat = len(maps) == 1 and maps[0].layout == "tokens"
    return Plan(member, arguments, maps, flat, block_ends(network.graph, values) if flat else nodes, network)


def _traced(member: str, arguments: dict[str, Any]) -> fx.GraphModule:
    model = _build_on_meta(member, arguments)
    try:
        return trace(model)
    except (TypeError, ValueError, RuntimeError, fx.proxy.TraceError) as error:
        raise RecipeError(
            f"torchvision/{member} cannot be traced by torch.fx, so its feature maps cannot be found "
            f"({reason(error)}); choose another model ({LISTING})"
        ) from error


def _find_maps(member: str, size: int, network: fx.GraphModule) -> tuple[Map, ...]:
    if not _size_names(member):
        return choose_maps(network.graph, _run(network, _PROBE), _run(network, 2 * _PROBE), _PROBE)
    # Built for one size: for twice that it has to be built again.
    twice = _traced(member, _arguments(member, 2 * size))
    return choose_maps(network.graph, _run(network, size), _run(twice, 2 * size), size)


def _build_on_meta(member: str, arguments: dict[str, Any]) -> nn.Module:
    try:
        with _OnMeta():
            return build(member, arguments, 0.0).to("meta")
    except (AssertionError, RuntimeError, ValueError) as error:
        raise UnfitError(reason(error)) from error


def _run(network: fx.GraphModule, size: int) -> dict[str, Any]:
    try:
        return record(network, size)
    except (AssertionError, RuntimeError, ValueError) as error:
        raise UnfitError(reason(error)) from error


def _skipping(model: nn.Module) -> list[StochasticDepth]:
    return [module for module in model.modules() if isinstance(module, StochasticDepth)]


def _accepted(member: str) -> set[str]:
    model_class = get_type_hints(get_model_builder(member.partition(".")[0]))["return"]
    return set(inspect.signature(model_class).parameters)


def _size_names(member: str) -> set[str]:
    return _accepted(member) & _SIZES.keys()


def _arguments(member: str, size: int) -> dict[str, Any]:
    accepted = _accepted(member)
    plain = {name: value for name, value in _PLAIN.items() if name in accepted}
    return plain | {name: _SIZES[name](size) for name in _size_names(member)}


def _package(architecture: str) -> str:
    """Where a model comes from, such as `torchvision.models.detection`."""
    return get_model_builder(architecture).__module__.rpartition(".")[0]
