"""Every aggregator of TorchJD as a balancer."""

from __future__ import annotations

import fnmatch
import inspect
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from mtframe.errors import RecipeError, TrainingError, described
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
            made a tensor, a number per task in the recipe's order (`tau` of `PCD`: a task but the first). `n_tasks` is
            given. With either, a task that takes no part in a step has a gradient of 0 in it.

    Raises:
        RecipeError: TorchJD or what the aggregator needs is not installed, there is no such aggregator, it does not
            take the arguments, a list lacks a number for a task, or it fails whatever the gradients of these tasks.
    """

    example: ClassVar[str] = "UPGrad"

    def __init__(self, member: str, tasks: Sequence[str], *, arguments: dict[str, Any] | None = None) -> None:
        found = _aggregators()
        if member not in found:
            # Names that differ in case alone are not close to each other.
            meant = {name.casefold(): name for name in found}.get(member.casefold(), member)
            hint = did_you_mean(meant, found) or f"; it has: {', '.join(sorted(found))}"
            raise RecipeError(f"no aggregator {member!r} in TorchJD{hint}")
        self.tasks, self._member = tuple(tasks), member
        self.present: Sequence[str] = self.tasks
        self._aggregator, self._of_all = _built(found[member], member, arguments or {}, self.tasks)
        weighting = getattr(self._aggregator, "gramian_weighting", None)
        if weighting is not None:
            self.weigh = lambda gram, losses: self._weighed(weighting, gram)
        else:
            self.combine = lambda gradients, losses: self._asked(self._aggregator, self._spread(gradients, (0,)))

    def _weighed(self, weighting: Callable[[Tensor], Tensor], gram: Tensor) -> Tensor:
        weights = self._asked(weighting, self._spread(gram, (0, 1)))
        return weights[self._here()] if len(weights) > len(gram) else weights

    def _asked(self, aggregator: Callable[[Tensor], Tensor], given: Tensor) -> Tensor:
        """What the library makes of what it is given.

        Raises:
            TrainingError: It raised an error, of finite gradients.
        """
        self._move_to(given)
        try:
            return aggregator(given)
        except torch.OutOfMemoryError:
            raise
        # A solver's errors are of types of its own.
        except Exception as error:
            if not given.isfinite().all():
                # The trainer says which loss or norm it is; to a solver it is just a matrix that it does not take.
                return torch.full_like(given[0], torch.nan)
            raise TrainingError(
                f"balancer torchjd/{self._member}: it fails with the gradients of {_counted(self.present)}: "
                f"{described(error).rstrip('.')}. Change its arguments, or take another balancer"
            ) from error

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

    def _move_to(self, given: Tensor) -> None:
        """Brings the aggregator's own tensors to the device and type of what it is given."""
        for module in self._aggregator.modules():
            for name, value in _remembered(module).items():
                if isinstance(value, Tensor) and value.is_floating_point():
                    setattr(module, name, value.to(given))

    @classmethod
    def members(cls, pattern: str, *, pretrained: bool = False) -> list[str]:
        """Names of TorchJD's aggregators that match a shell pattern."""
        return [] if pretrained else fnmatch.filter(sorted(_aggregators()), pattern)

    def state_dict(self) -> dict[str, Any]:
        """What the aggregator remembers, by the name of the attribute.

        That of `NashMTL` also holds a solver, and is left out: resumed, it begins anew.
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
            was_array = isinstance(getattr(modules[place], name, None), np.ndarray)
            setattr(modules[place], name, value.numpy() if was_array else value)


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


def _built(cls: type, member: str, arguments: Mapping[str, Any], tasks: Sequence[str]) -> tuple[Any, bool]:
    """The aggregator, and whether it is made for all tasks, not for those of a step."""
    parameters = inspect.signature(cls).parameters
    made = dict(arguments)
    if "n_tasks" in parameters:
        made.setdefault("n_tasks", len(tasks))
    for name in made:
        if name not in parameters:
            there = ", ".join(parameters) or "none"
            raise RecipeError(f"arguments: {member} has no {name!r}{did_you_mean(name, parameters)}; it has: {there}")
    needed = [name for name, one in parameters.items() if one.default is one.empty and name not in made]
    if needed:
        raise RecipeError(f"arguments: {member} needs {', '.join(needed)}, as in {{{needed[0]}: ...}}")
    for name, value in arguments.items():
        if isinstance(value, list):
            # PCD's first task is the primary one, and `tau` what it leaves to each of the others.
            made[name] = _vector(name, value, tasks[1:] if (member, name) == ("PCD", "tau") else tasks)
    try:
        if len(tasks) > 1:
            _try(cls(**made), len(tasks))
        return cls(**made), "n_tasks" in made or any(isinstance(value, list) for value in arguments.values())
    except ImportError as error:
        raise RecipeError(f"TorchJD's {member} cannot be made: {error}") from error
    # Arguments of a wrong type raise anything, and a solver's errors are of types of its own.
    except Exception as error:
        raise RecipeError(
            f"arguments: TorchJD's {member} does not take {dict(arguments)} for {_counted(tasks)}: "
            f"{described(error).rstrip('.')}. Change them, or take another balancer"
        ) from error


def _try(aggregator: Any, count: int) -> None:
    """Asks an aggregator once, of orthogonal gradients; it is of no use after that, as it may remember them.

    Some take a certain number of rows only, or check their arguments no sooner.
    """
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # These gradients are their own Gram matrix.
        getattr(aggregator, "gramian_weighting", aggregator)(torch.eye(count, dtype=torch.float64))


def _vector(name: str, values: Sequence[Any], tasks: Sequence[str]) -> Tensor:
    """An argument that is a number per task."""
    if len(values) != len(tasks):
        raise RecipeError(f"arguments.{name}: expected a number for each of the {_counted(tasks)}, got {len(values)}")
    for value in values:
        if isinstance(value, bool) or not (isinstance(value, int | float) and math.isfinite(value)):
            raise RecipeError(f"arguments.{name}: expected a finite number for each of the tasks, got {value!r}")
    return torch.tensor(values, dtype=torch.float64)


def _counted(tasks: Sequence[str]) -> str:
    return f"{len(tasks)} task{'s' * (len(tasks) != 1)} ({', '.join(tasks)})"
