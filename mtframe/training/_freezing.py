"""What of a model is not trained."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence, Set

from torch import nn

from mtframe.errors import RecipeError
from mtframe.kinds import NamesShared
from mtframe.model import MultiTaskModel, freeze
from mtframe.registry import did_you_mean

from ._own import is_within, own_parts


def freeze_parts(model: nn.Module, names: Sequence[str]) -> None:
    """Keeps what `train.freeze` names as it is (see `mtframe.model.freeze`).

    Raises:
        RecipeError: The model has no such part, or nothing is left to train.
    """
    known = {name for name, _ in (*model.named_modules(), *model.named_parameters()) if name}
    for name in names:
        if name not in known:
            few = [*(part for part, _ in model.named_children()), *_children(model, "sharing", "heads")]
            raise RecipeError(
                f"train.freeze: the model has no part {name!r}{did_you_mean(name, known)}; "
                f"its parts are {', '.join(few)}, and those within them"
            )
    freeze(model, names)
    if names and not any(parameter.requires_grad for parameter in model.parameters()):
        raise RecipeError("train.freeze: nothing is left to train")


class Thawing:
    """Parts that stay as they are in the first steps, and are trained after them: what `frozen_steps` asks for.

    Until then they get no gradient, no weight decay and no state of the optimiser, and what is frozen as a whole is in
    evaluation mode: BatchNorm normalises with the statistics that it has, and nothing is dropped.

    Args:
        model: The model.
        steps: By name of a parameter, in how many steps it is frozen.
    """

    def __init__(self, model: nn.Module, steps: Mapping[str, int]) -> None:
        frozen = {name: count for name, count in steps.items() if count > 0}
        self._parameters = [(model.get_parameter(name), count) for name, count in frozen.items()]
        # A module is as long as it is whole. Those within it come after it, and may stay longer.
        self._modules: list[tuple[nn.Module, int]] = []
        for module_name, module in model.named_modules() if frozen else ():
            prefix = f"{module_name}." if module_name else ""
            held = [frozen.get(prefix + name, 0) for name, p in module.named_parameters() if p.requires_grad]
            if held and (count := min(held)) > 0:
                self._modules.append((module, count))
        self.steps = max(frozen.values(), default=0)
        self._done = False

    def begin(self, step: int) -> None:
        """Before the step with this number, counted from 0: freezes what is frozen in it, and thaws the rest."""
        if self._done:
            return
        for parameter, count in self._parameters:
            parameter.requires_grad_(step >= count)
        for module, count in self._modules:
            module.train(step >= count)
        self._done = step >= self.steps

    def check(self, model: MultiTaskModel, tasks: Collection[str], steps: int) -> None:
        """Raises RecipeError if one of these tasks has nothing to train at first, or a part is never trained."""
        if self.steps == 0 or steps == 0:
            return
        if self.steps >= steps:
            raise RecipeError(
                f"train.groups: frozen_steps of {self.steps}, and the training has {steps}. What is never trained is "
                "named in train.freeze"
            )
        self.begin(0)
        try:
            check_trained(model, tasks, "train.groups: in the first steps")
        finally:
            self.begin(self.steps)
            self._done = False


def check_trained(model: MultiTaskModel, tasks: Collection[str], key: str = "train.freeze:") -> None:
    """Raises RecipeError if nothing is trained of what one of these tasks runs through, nor of its loss."""
    own = own_parts(model)
    shared = set(model.sharing.shared_parameters() if isinstance(model.sharing, NamesShared) else ())
    trained = set[str]()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            owners = {task for part, task in own.items() if is_within(name, (part,))}
            # What is nobody's own, or said to be shared though one task's (a column of cross-stitch), is everybody's.
            if not owners or parameter in shared:
                return
            trained |= owners
    if still := [task for task in tasks if task not in trained]:
        few = [task for task in tasks if task in trained]
        alone = f", or name the tasks that are trained: train.tasks=[{', '.join(few)}]" if few else ""
        raise RecipeError(f"{key} nothing of {', '.join(map(repr, still))} is left to train. Freeze less of it{alone}")


def parts_within(module: nn.Module, names: Set[str], new: Collection[str], prefix: str = "") -> Iterator[str]:
    """The largest parts of a module that hold nothing but what is old, by name.

    Args:
        module: The model.
        names: Of parameters and buffers: the old ones.
        new: Names of parts that are new; what has one of them within is not old, whether that has weights or not.
        prefix: Where the module is.
    """
    for name, child in module.named_children():
        place = f"{prefix}{name}"
        held = {f"{place}.{key}" for key in child.state_dict()}
        if held and held <= names and not any(is_within(part, (place,)) for part in new):
            yield place
        elif held:
            yield from parts_within(child, names, new, f"{place}.")
    yield from (f"{prefix}{name}" for name in module._parameters if f"{prefix}{name}" in names)


def _children(model: nn.Module, *parts: str) -> Iterable[str]:
    return (f"{part}.{name}" for part in parts for name, _ in model.get_submodule(part).named_children())
