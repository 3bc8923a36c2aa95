"""Whether the rows of a batch tell tasks apart: trial passes before gradients are taken by them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mtframe.errors import described
from mtframe.model import MultiTaskModel

from ._row_parameters import Attribution, Unattributable, check_plain
from ._standing_in import standing_in

Images = Mapping[str, Tensor]
Parameters = Mapping[str, nn.Parameter]


def why_rows_fail(model: MultiTaskModel, parameters: Parameters, images: Images, *, backward: bool) -> str | None:
    """Why rows do not tell the tasks of such batches apart; None if they do.

    A pass for each task, with its images poisoned by NaN, shows whether each use of a shared parameter sees rows in the
    images' order, and whether a layer other than BatchNorm mixes them. Buffers and random draws are left as they were.

    Args:
        model: In training mode.
        parameters: The shared ones, by name.
        images: By task, of the shapes that are asked about.
        backward: Whether to try a backward pass too, which shows whether every use was seen.
    """
    device = model.mean.device
    try:
        with torch.random.fork_rng([device] if device.type == "cuda" else []), buffers_kept(model.sharing):
            for poisoned in images:
                _try_poisoned(model, parameters, images, poisoned)
            if backward:
                _try_backward(model, parameters, images)
    except Unattributable as error:
        return str(error)
    except Exception as error:
        # Whatever a backbone does with parameters that stand-ins cannot do; the plain pass may well work.
        return described(error).splitlines()[0]
    return None


@contextmanager
def buffers_kept(module: nn.Module) -> Iterator[None]:
    """Whatever passes within it move in training mode, running statistics and the like, is put back."""
    before = [(buffer, buffer.clone()) for buffer in module.buffers()]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, value in before:
                buffer.copy_(value)


def mixes_rows(sharing: nn.Module) -> bool:
    """Whether what is normalised depends on the other rows of the batch."""
    return any(isinstance(m, _BatchNorm) and (m.training or m.running_mean is None) for m in sharing.modules())


def attribution_of(sharing: nn.Module, images: Images, poisoned: str | None = None) -> Attribution:
    """The attribution for a pass of these images through a sharing scheme."""
    fixed = frozenset(t.untyped_storage().data_ptr() for t in (*sharing.parameters(), *sharing.buffers()))
    return Attribution(tuple(images), fixed, poisoned)


@torch.no_grad()
def _try_poisoned(model: MultiTaskModel, parameters: Parameters, images: Images, poisoned: str) -> None:
    """A pass as in training, except for BatchNorm, which has a backward pass of its own."""
    norms = {module: module.training for module in model.sharing.modules() if isinstance(module, _BatchNorm)}
    dtype = model.mean.dtype
    try:
        for module in norms:
            module.training = False
        fake = {
            task: torch.full_like(pixels, torch.nan if task == poisoned else 1.0, dtype=dtype)
            for task, pixels in images.items()
        }
        with standing_in(model.sharing, parameters, attribution_of(model.sharing, images, poisoned)):
            maps = model.sharing(fake)
    finally:
        for module, mode in norms.items():
            module.training = mode
    check_plain(maps)
    for task, of_task in maps.items():
        if task != poisoned and any(m.isnan().any() for m in of_task):
            raise Unattributable(f"the maps of {task} depend on the images of {poisoned}")


def _try_backward(model: MultiTaskModel, parameters: Parameters, images: Images) -> None:
    """A backward pass: parameters have a gradient by way of their stand-ins if they have one, and only so."""
    fake = {task: pixels.to(model.mean.dtype) for task, pixels in images.items()}
    values = list(parameters.values())
    plain = _reached(model.sharing(fake), values)
    with standing_in(model.sharing, parameters, attribution_of(model.sharing, images)) as stands:
        leaves = [leaf for stand in stands.values() for leaf in stand.leaves]
        by_rows = _reached(model.sharing(fake), [*leaves, *values])
    seen, past = by_rows[: len(leaves)], by_rows[len(leaves) :]
    tasks = len(images)
    for number, (name, wanted) in enumerate(zip(parameters, plain, strict=True)):
        if past[number] or any(seen[number * tasks : (number + 1) * tasks]) != wanted:
            raise Unattributable(f"{name} is used past its module: by another name, or in a function of its own")


def _reached(maps: Mapping[str, Sequence[Tensor]], inputs: Sequence[Tensor]) -> list[bool]:
    """Which of these a backward pass from all maps reaches."""
    check_plain(maps)
    total = sum(m.float().sum() for of_task in maps.values() for m in of_task if m.requires_grad)
    if not isinstance(total, Tensor):
        return [False] * len(inputs)
    return [gradient is not None for gradient in torch.autograd.grad(total, inputs, allow_unused=True)]
