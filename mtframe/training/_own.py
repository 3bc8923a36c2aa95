"""Which parts of a model are one task's own."""

from __future__ import annotations

from collections.abc import Collection

from torch import nn

from mtframe.model import MultiTaskModel


def own_parts(model: MultiTaskModel) -> dict[str, str]:
    """By name, the parts that are one task's own, each with the task: its head, its loss, and those of its sharing.

    A scheme keeps these in a dictionary with the tasks as its keys (`mtframe.model.by_task`). A name alone says
    nothing: a task may be called `network` or `bn1`, as parts of a trunk are.
    """
    tasks = set(model.tasks)
    dicts = {"heads": model.heads, "losses": model.losses} | {
        f"sharing.{name}": part
        for name, part in model.sharing.named_modules(remove_duplicate=False)
        if isinstance(part, nn.ModuleDict | nn.ParameterDict) and set(part.keys()) == tasks
    }
    return {f"{name}.{task}": task for name in dicts for task in model.tasks}


def is_within(name: str, parts: Collection[str]) -> bool:
    """Whether a tensor or module is one of these parts of a model, or in one."""
    return any(f"{name}.".startswith(f"{part}.") for part in parts)
