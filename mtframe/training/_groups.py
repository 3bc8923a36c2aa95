"""What of a model trains otherwise than the rest: `train.groups`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import accumulate

from torch import nn

from mtframe.errors import RecipeError
from mtframe.kinds import NamesLayers
from mtframe.model import backbones_in
from mtframe.recipe import GroupRecipe, TrainOptions
from mtframe.registry import did_you_mean

# What patterns call the backbone, wherever a sharing scheme keeps it.
_BACKBONE = "backbone"


@dataclass(frozen=True, slots=True)
class Setting:
    """How one parameter trains.

    Attributes:
        lr_scale: What the learning rate is multiplied by.
        weight_decay: Its weight decay.
        frozen_steps: Steps at the beginning in which it stays as it is.
    """

    lr_scale: float
    weight_decay: float
    frozen_steps: int


@dataclass(frozen=True, slots=True)
class _Layer:
    """Where a parameter is in its backbone: layer `number`, counted from 0, of `count`."""

    number: int
    count: int


def settings_of(model: nn.Module, options: TrainOptions) -> dict[str, Setting]:
    """How each trained parameter trains, by name.

    Raises:
        RecipeError: A group names nothing of the model, or changes nothing.
    """
    groups = _Groups(model, options)
    groups.check()
    return {name: setting for name, setting in groups.settings.items() if model.get_parameter(name).requires_grad}


def described(model: nn.Module, options: TrainOptions) -> list[str]:
    """What groups come to, for people: a line for each."""
    return list(_Groups(model, options).lines())


def still_meant(model: nn.Module, options: TrainOptions) -> list[GroupRecipe]:
    """The groups that change something in a model, which may lack a part that they name."""
    groups = _Groups(model, options)
    return [group for number, group in enumerate(options.groups) if number in groups.counted]


class _Groups:
    """The groups of a recipe, in a model.

    Args:
        model: What they are groups of.
        options: The recipe's.

    Attributes:
        settings: How each parameter trains, by name, whether it is trained or not.
        counted: Numbers of the groups that change something.
    """

    def __init__(self, model: nn.Module, options: TrainOptions) -> None:
        self._model, self._options, self._groups = model, options, options.groups
        backbones = dict(backbones_in(model)) if options.groups else {}
        self._layers = {name: layer for path, one in backbones.items() for name, layer in _layers(path, one)}
        self._names = {name: tuple(_names(name, backbones)) for name, _ in model.named_parameters()}
        self._matching = [
            {name for name, known in self._names.items() if any(fnmatchcase(one, group.part) for one in known)}
            for group in options.groups
        ]
        self.counted: set[int] = set()
        self.settings = {name: self._setting(name, parameter) for name, parameter in model.named_parameters()}

    def check(self) -> None:
        """Raises RecipeError if a group names nothing of the model, or changes nothing."""
        for number, group in enumerate(self._groups):
            where = f"train.groups.{number}"
            if not self._matching[number]:
                known = dict.fromkeys(name for names in self._names.values() for name in names)
                few = [name for name in known if name.count(".") < 2 and name.partition(".")[0] != _BACKBONE]
                raise RecipeError(
                    f"{where}.part: the model has no part {group.part!r}{did_you_mean(group.part, known)}; "
                    f"its parts are {', '.join(few)}, and those within them"
                )
            if number not in self.counted:
                why = "none of it is in a layer of a backbone"
                if group.plain().keys() != {"part", "layer_decay"} or any(
                    name in self._layers for name in self._matching[number]
                ):
                    why = "groups before it have the same options for all of it, and the first counts"
                raise RecipeError(f"{where}: changes nothing of {group.part!r}: {why}")

    def lines(self) -> Iterator[str]:
        """What groups come to, for people."""
        for group, matching in zip(self._groups, self._matching, strict=True):
            its = [self.settings[name] for name in matching if self._model.get_parameter(name).requires_grad]
            if not its:
                yield f"{group.part}: not trained"
                continue
            rates, decays = (
                " to ".join(f"{value:.3g}" for value in dict.fromkeys((min(values), max(values))))
                for values in (
                    [one.lr_scale * self._options.lr for one in its],
                    [one.weight_decay for one in its if one.weight_decay] or [0.0],
                )
            )
            frozen = max(one.frozen_steps for one in its)
            later = f", trained from step {frozen + 1} on" if frozen else ""
            yield f"{group.part}: {len(its)} tensors, peak learning rate {rates}, weight decay {decays}{later}"

    def _setting(self, name: str, parameter: nn.Parameter) -> Setting:
        chosen, options = self._chosen(name), self._options
        scale = chosen.get("lr_scale", 1.0)
        if (falling := chosen.get("layer_decay")) is not None and (layer := self._layers.get(name)) is not None:
            # BEiT (arXiv:2106.08254) and timm: what comes after the layers, the heads, is layer L.
            scale *= falling ** (layer.count - layer.number)
        # Biases and the scales of norms have none.
        decays = parameter.dim() > 1 and not name.endswith(".bias")
        decay = chosen.get("weight_decay", options.weight_decay) if decays else 0.0
        return Setting(scale, decay, int(chosen.get("frozen_steps", 0)))

    def _chosen(self, name: str) -> dict[str, float]:
        """For each option that some group has for a parameter, that of the first."""
        chosen: dict[str, float] = {}
        for number, group in enumerate(self._groups):
            if name not in self._matching[number]:
                continue
            for option, value in group.plain().items():
                if option != "part" and option not in chosen:
                    chosen[option] = value
                    if option != "layer_decay" or name in self._layers:
                        self.counted.add(number)
        return chosen


def optimizer_groups(model: nn.Module, settings: Mapping[str, Setting]) -> list[dict[str, object]]:
    """Groups of parameters for an optimiser whose schedule knows timm's `lr_scale`."""
    found: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, setting in settings.items():
        found.setdefault((setting.lr_scale, setting.weight_decay), []).append(model.get_parameter(name))
    return [
        {"params": parameters, "weight_decay": decay, **({"lr_scale": scale} if scale != 1 else {})}
        for (scale, decay), parameters in sorted(found.items(), key=lambda item: (-item[0][0], item[0][1]))
    ]


def _layers(path: str, backbone: object) -> Iterator[tuple[str, _Layer]]:
    """The layer of each parameter of a backbone that is in one, by its name in the model."""
    assert isinstance(backbone, nn.Module)
    layers = backbone.lr_layers if isinstance(backbone, NamesLayers) else backbone.stages
    assert isinstance(layers, tuple)
    for name, _ in backbone.named_parameters():
        for number, prefixes in enumerate(layers):
            if any(f"{name}.".startswith(f"{prefix}.") for prefix in prefixes):
                yield f"{path}.{name}", _Layer(number, len(layers))
                break


def _names(name: str, backbones: Iterable[str]) -> Iterator[str]:
    """Of a parameter and all parts that hold it, the names in the model, and those that begin with the backbone."""
    yield from accumulate(name.split("."), "{}.{}".format)
    for path in backbones:
        if name.startswith(f"{path}."):
            yield from accumulate((_BACKBONE, *name.removeprefix(f"{path}.").split(".")), "{}.{}".format)
