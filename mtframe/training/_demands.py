"""Numbers that no machine like this one can serve, refused before anything is built."""

from __future__ import annotations

import os
from copy import deepcopy

import torch
from torch import Tensor

from mtframe.device import memory_size
from mtframe.errors import RecipeError, amount
from mtframe.model import MultiTaskModel
from mtframe.recipe import Recipe

# Processes that read images: more than so many a processor only wait for each other.
_WORKERS_A_PROCESSOR, _WORKERS = 8, 32

# Bytes of a pixel: as it was read, and as the network's input in float32.
_BYTES = 3 + 3 * 4


# Where a step's inputs take a larger share of memory than that, it is worth a second to know what the network needs.
_LARGE = 1 / 200


def check_demands(recipe: Recipe) -> None:
    """Raises RecipeError if a step's images, or the processes that read them, are beyond this machine."""
    train, processors = recipe.train, os.cpu_count() or 1
    most = max(_WORKERS, _WORKERS_A_PROCESSOR * processors)
    if train.workers > most:
        raise RecipeError(
            f"train.workers: {train.workers} processes that read images, on a machine of {processors} processors; "
            f"expected at most {most}"
        )
    if (memory := memory_size()) is None:
        return
    for name in recipe.trained:
        task = recipe.tasks[name]
        needed = _input_bytes(recipe, name)
        if task.images is None and needed > memory:
            step = f" x {train.accumulate} batches" if train.accumulate > 1 else ""
            raise RecipeError(
                f"tasks.{name}: {task.batch_size} images of {task.size} pixels{step} a step take {amount(needed)} "
                f"before the network has begun, and this machine has {amount(memory)}. Lower batch_size or size"
            )


def check_step(recipe: Recipe, model: MultiTaskModel) -> None:
    """Raises RecipeError if what a step keeps for its backward pass does not fit into a CPU's memory.

    Linux would kill the process; accelerators raise an error by themselves.
    """
    memory = memory_size()
    if memory is None or model.mean.device.type != "cpu":
        return
    large = [name for name in recipe.trained if _input_bytes(recipe, name) > memory * _LARGE]
    sizes = {name: recipe.tasks[name].batch_size * _kept(model, name, recipe.tasks[name].size) for name in large}
    for name, needed in sizes.items():
        if needed > memory:
            task = recipe.tasks[name]
            raise RecipeError(
                f"tasks.{name}: for a step's {task.batch_size} images of {task.size} pixels the network keeps "
                f"{amount(needed)}, and this machine has {amount(memory)}. Lower batch_size or size"
            )


def _input_bytes(recipe: Recipe, task: str) -> int:
    part = recipe.tasks[task]
    return part.batch_size * part.size**2 * _BYTES * recipe.train.accumulate


def _kept(model: MultiTaskModel, task: str, size: int) -> int:
    """Bytes that a forward pass of one image keeps for the backward pass, found on tensors without values.

    0 where a network computes with values, which such tensors have not.
    """
    shapes = deepcopy(model).to("meta").eval()
    weights = {_memory_of(tensor) for tensor in (*shapes.parameters(), *shapes.buffers())}
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: Tensor) -> Tensor:
        if (place := _memory_of(tensor)) not in weights:
            kept[place] = tensor.untyped_storage()
        return tensor

    try:
        with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            shapes({task: torch.zeros(1, 3, size, size, device="meta")})
    except Exception:
        return 0
    return sum(storage.nbytes() for storage in kept.values())


def _memory_of(tensor: Tensor) -> int:
    """Of tensors that share memory the same number, also where there is none behind it."""
    return tensor.untyped_storage()._cdata
