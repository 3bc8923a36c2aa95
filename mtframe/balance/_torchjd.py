from __future__ import annotations

import fnmatch
import inspect
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from mtframe.errors import RecipeError
from mtframe.registry import did_you_mean

# What an aggregator remembers from step to step is among its attributes; these are the types of those that a
# checkpoint keeps.
_PLAIN = (Tensor, np.ndarray, tuple, bool, int, float, str, type(None))

# What every module has.
_OF_MODULES = frozenset(vars(nn.Module()))


class TorchJD:
    """Every aggregator of TorchJD (Jacobian descent, arXiv:2406.16232): `torchjd/UPGrad`, `torchjd/ConFIG`.

    Needs `pip install 'mtframe[torchjd]'`. An aggregator that is a function of the Gram matrix has `weigh`; one that is
    not has `combine` and gets the gradients themselves.

    Args:
        member: TorchJD's name of the aggregator.
        tasks: Names of the tasks.
        arguments: Of the aggregator's constructor, as TorchJD documents them, e.g. `{c: 0.5}` of `CAGrad`; a list is
            made a tensor, a number a task in the recipe's order. `n_tasks` is given. With either, a task that takes no
            part in a step has a gradient of 0 in it.

    Raises:
        RecipeError: TorchJD or what the aggregator needs is not installed, there is no such aggregator, or it does not
            take the arguments.
    """

    example: ClassVar[str] = "UPGrad"

    def __init__(self, member: str, tasks: Sequence[str], *, arguments: dict[str, Any] | None = None) -> None:
        found = _aggregators()
        if member not in found:
            raise RecipeError(f"no aggregator {member!r} in TorchJD{did_you_mean(member, found)}")
        self.tasks = tuple(tasks)
        self.present: Sequence[str] = self.tasks
        self._aggregator, self._of_all = _built(found[member], member, arguments or {}, len(tasks))
        weighting = getattr(self._aggregator, "gramian_weighting", None)
        if weighting is not None:
            self.weigh = lambda gram, losses: self._weighed(weighting, gram)
        else:
            self.combine = lambda gradients, losses: self._aggregator(self._beside(self._spread(gradients, (0,))))

    def _weighed(self, weighting: Callable[[Tensor], Tensor], gram: Tensor) -> Tensor:
        weights: Tensor = weighting(self._beside(self._spread(gram, (0, 1))))
        return weights[self._here()] if len(weights) > len(gram) else weights

    def _here(self) -> list[int]:
        return [self.tasks.index(name) for name in self.present]

    def _spread(self, given: Tensor, dims: tuple[int, ...]) -> Tensor:
        """What is given of the tasks of this step as one of all, with 0 for the others, where it must be of all."""
        if not self._of_all or len(given) == len(self.tasks):
            return given
        for dim in dims:
            shape = [*given.shape[:dim], len(self.tasks), *given.shape[dim + 1 :]]
            given = given.new_zeros(shape).index_copy(dim, torch.tensor(self._here(), device=given.device), given)
        return given

    def _beside(self, given: Tensor) -> Tensor:
        """What is given, after the aggregator's tensors came to its device and type."""
        for module in self._aggregator.modules():
            for name, value in _remembered(module).items():
                if isinstance(value, Tensor) and value.is_floating_point():
                    setattr(module, name, value.to(given))
        return given

    @classmethod
    def members(cls, pattern: str, *, pretrained: bool = False) -> list[str]:
        """Names of TorchJD's aggregators that match a shell pattern."""
        return [] if pretrained else fnmatch.filter(sorted(_aggregators()), pattern)

    def state_dict(self) -> dict[str, Any]:
        """What the aggregator remembers, by the name of the attribute.

        That of `NashMTL` holds a solver, too, and is left out: resumed, it begins anew.
        """
        if type(self._aggregator).__name__ == "NashMTL":
            return {}
        return {
            f"{place}:{name}": torch.from_numpy(value) if isinstance(value, np.ndarray) else value
            for place, module in self._aggregator.named_modules()
            for name, value in _remembered(module).items()
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on from what `state_dict` gave."""
        modules = dict(self._aggregator.named_modules())
        for key, value in state.items():
            place, _, name = key.rpartition(":")
            setattr(modules[place], name, value)


def _remembered(module: nn.Module) -> dict[str, Any]:
    everything = vars(module) | dict(module.named_buffers(recurse=False))
    return {name: value for name, value in everything.items() if name not in _OF_MODULES and isinstance(value, _PLAIN)}


def _library() -> ModuleType:
    try:
        import torchjd.aggregation
    except ImportError as error:
        raise RecipeError(f"it needs TorchJD ({error}). Install it with: pip install 'mtframe[torchjd]'") from error
    return torchjd.aggregation


def _aggregators() -> dict[str, type]:
    """TorchJD's aggregators by name, without those that others are derived from."""
    library = _library()
    bases = {library.Aggregator, library.WeightedAggregator, library.GramianWeightedAggregator}
    offered = {name: getattr(library, name) for name in library.__all__}
    return {name: cls for name, cls in offered.items() if issubclass(cls, library.Aggregator) and cls not in bases}


def _built(cls: type, member: str, arguments: Mapping[str, Any], num_tasks: int) -> tuple[Any, bool]:
    """The aggregator, and whether it is made for all tasks, not for those of a step."""
    parameters = inspect.signature(cls).parameters
    made = {
        name: torch.tensor(value, dtype=torch.float64) if isinstance(value, list) else value
        for name, value in arguments.items()
    }
    if "n_tasks" in parameters:
        made.setdefault("n_tasks", num_tasks)
    for name in made:
        if name not in parameters:
            there = ", ".join(parameters) or "none"
            raise RecipeError(f"arguments: {member} has no {name!r}{did_you_mean(name, parameters)}; it has: {there}")
    needed = [name for name, one in parameters.items() if one.default is one.empty and name not in made]
    if needed:
        raise RecipeError(f"arguments: {member} needs {', '.join(needed)}, as in {{{needed[0]}: ...}}")
    try:
        return cls(**made), "n_tasks" in made or any(isinstance(value, list) for value in arguments.values())
    except (ImportError, TypeError, ValueError) as error:
        raise RecipeError(f"arguments: {member} cannot be made: {error}") from error
