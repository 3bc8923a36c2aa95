"""Which tasks help each other: inter-task affinity by lookahead (TAG, arXiv:2109.04617) at one step."""

# Shapes: T tasks.

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor

from mtframe.data import Batch
from mtframe.gradients import GradientEngine, Gradients, buffers_kept
from mtframe.model import MultiTaskModel
from mtframe.training import ModelInputs


def lookahead(
    model: MultiTaskModel, engine: GradientEngine, batches: Mapping[str, Batch], lr: float, *, seed: int = 0
) -> tuple[Tensor, dict[str, Gradients]]:
    """Inter-task affinity at one step (arXiv:2109.04617, eq. 1 to 3), and the tasks' gradients.

        Z[i, j] = 1 - L_j(θ - lr ∂L_i/∂θ) / L_j(θ),

    θ the shared parameters, L_j on the batch of task j, in training mode, in float32 (a small change of θ is lost in
    bf16), with the same random draws for each. Afterwards all is as it was, except torch's generator and gradients,
    which are emptied.

    Args:
        model: In training mode, on the batches' device.
        engine: The model's, which gives exact gradients.
        batches: Batch by task.
        lr: Learning rate of the lookahead's plain gradient step.
        seed: Of what models and losses draw.

    Returns:
        Z, (T, T) float64 on the CPU in the order of the model's tasks, NaN where a loss is not above 0 or a task is not
        in this step; and the gradients of the shared parameters by task.
    """
    inputs = ModelInputs.of(batches)

    def losses() -> dict[str, Tensor]:
        torch.manual_seed(seed)
        outputs, targets = model(inputs.images, inputs.lenders), inputs.targets
        terms = {task: model.loss(task, outputs[task], targets[task]) for task in model.tasks if task in targets}
        return {task: torch.stack(list(named.values())).sum() for task, named in terms.items()}

    shared = engine.shared_parameters()
    kept = {name: parameter.detach().clone() for name, parameter in shared.items()}
    affinity_TT = torch.full((len(model.tasks),) * 2, torch.nan, dtype=torch.float64)
    with _full_precision(model.mean.device):
        before = _values(model, losses)
        with buffers_kept(model):
            _, gradients = engine.gradients(inputs.images, inputs.lenders, losses)
        model.zero_grad(set_to_none=True)
        for task, of_task in gradients.items():
            with _moved(shared, of_task, lr, kept):
                after = _values(model, losses)
            for other, value in after.items():
                if before[other] > 0:
                    i, j = model.tasks.index(task), model.tasks.index(other)
                    affinity_TT[i, j] = 1 - value / before[other]
    return affinity_TT, gradients


@torch.no_grad()
def _values(model: MultiTaskModel, losses: Callable[[], dict[str, Tensor]]) -> dict[str, float]:
    with buffers_kept(model):
        return {task: loss.item() for task, loss in losses().items()}


@contextmanager
def _moved(
    shared: Mapping[str, Tensor], gradients: Mapping[str, Tensor | None], lr: float, kept: Mapping[str, Tensor]
) -> Iterator[None]:
    """Within it, the shared parameters are one plain gradient step further."""
    with torch.no_grad():
        for name, parameter in shared.items():
            if (gradient := gradients[name]) is not None:
                parameter.sub_(gradient, alpha=lr)
    try:
        yield
    finally:
        with torch.no_grad():
            for name, parameter in shared.items():
                parameter.copy_(kept[name])


def _full_precision(device: torch.device) -> AbstractContextManager[Any]:
    if device.type != "cuda":
        return nullcontext()
    # A convolution in TF32 would not see so small a change of its weights.
    return torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=False, allow_tf32=False)
