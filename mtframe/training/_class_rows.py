"""Weights with a row for each class, as class centres and classifiers have: they come over by the classes' names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from mtframe.assembly import Assembly
from mtframe.data import DataInfo
from mtframe.errors import MtframeError
from mtframe.kinds import Sharing
from mtframe.model import MultiTaskModel


def class_axes(model: MultiTaskModel, assembly: Assembly, task: str) -> dict[str, int | None]:
    """The tensors of a task's head and loss whose shape depends on the number of classes.

    Found by building both for one class more, so no component has to say it. Where that cannot be done, every tensor
    with a side as long as there are classes is one.

    Args:
        model: Of `assembly`.
        assembly: Its parts.
        task: One of its tasks.

    Returns:
        By name in the model, the axis that has one row for each class; None where the shape depends on the classes in
        another way, so that nobody knows which row is whose.
    """
    classes = assembly.infos[task].classes
    own = {
        name: tensor.shape
        for name, tensor in model.state_dict().items()
        if name.startswith((f"heads.{task}.", f"losses.{task}."))
    }
    try:
        more = _shapes_with_one_more(model, assembly, task)
    except (MtframeError, TypeError, ValueError, RuntimeError, LookupError):
        return {name: None for name, shape in own.items() if len(classes) in shape}
    axes: dict[str, int | None] = {}
    for name, shape in own.items():
        if (other := more.get(name)) != shape:
            changed = [axis for axis, sides in enumerate(zip(shape, other or (), strict=False)) if sides[0] != sides[1]]
            rows = len(changed) == 1 and shape[changed[0]] == len(classes) and other is not None
            axes[name] = changed[0] if rows and len(other or ()) == len(shape) else None
    return axes


def by_name(
    given: Tensor, ours: Tensor, axis: int | None, old: Sequence[str], new: Sequence[str]
) -> tuple[Tensor, int]:
    """A tensor of the model whose rows are, for classes of the same name, those of another one.

    Args:
        given: With a row for each of the classes `old` along `axis`.
        ours: With a row for each of `new`.
        axis: Of the rows; None if nobody knows which row is whose.
        old: Names of classes.
        new: Names of classes.

    Returns:
        The tensor, and how many rows of `given` are in it; 0 where the tensors do not fit otherwise.
    """
    here = {name: row for row, name in enumerate(new)}
    pairs = [(there, here[name]) for there, name in enumerate(old) if name in here]
    if axis is None or given.dim() != ours.dim() or given.shape[axis] != len(old) or not pairs:
        return ours, 0
    if any(sides[0] != sides[1] for n, sides in enumerate(zip(given.shape, ours.shape, strict=True)) if n != axis):
        return ours, 0
    rows_there, rows_here = (torch.tensor(rows, device=given.device) for rows in zip(*pairs, strict=True))
    taken = given.index_select(axis, rows_there).to(ours.dtype)
    return ours.clone().index_copy_(axis, rows_here.to(ours.device), taken.to(ours.device)), len(pairs)


def _shapes_with_one_more(model: MultiTaskModel, assembly: Assembly, task: str) -> Mapping[str, torch.Size]:
    info, another = assembly.infos[task], "another class"
    while another in info.classes:
        another += "'"
    sharing: Sharing = model.sharing  # type: ignore[assignment]
    # What it draws must not move the numbers that the model itself is initialised with.
    with torch.random.fork_rng(devices=[]):
        more = DataInfo(info.target, (*info.classes, another))
        head, loss = assembly.head_and_loss(task, sharing.features, more, restoring=("head", "loss"))
    return {
        f"{kind}.{task}.{name}": tensor.shape
        for kind, part in (("heads", head), ("losses", loss))
        for name, tensor in part.state_dict().items()
    }
