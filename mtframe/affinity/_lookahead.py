"""Which tasks help each other: inter-task affinity by lookahead (TAG, arXiv:2109.04617), measured while training."""

# Shapes: T tasks, N measured steps.

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import torch
from torch import Tensor

from mtframe.assembly import Assembly
from mtframe.data import Batch
from mtframe.errors import RecipeError
from mtframe.gradients import GradientEngine, buffers_kept, cosine, names_by_stage, stage_grams
from mtframe.hooks import Hooks
from mtframe.model import MultiTaskModel
from mtframe.recipe import Recipe
from mtframe.run import RunFolder
from mtframe.training import Meetings, Trainer, check_comparable, taken_apart

from ._student import quantile


@dataclass(frozen=True)
class Means:
    """What was measured at N steps, on average.

    Attributes:
        mean: (T, T) float64; NaN where nothing was measured.
        error: (T, T) standard errors of the means; NaN for fewer than two steps.
        negative: (T, T) share of the steps below 0.
        count: (T, T) how many steps each is of.
    """

    mean: Tensor
    error: Tensor
    negative: Tensor
    count: Tensor

    @classmethod
    def of(cls, values_NTT: Tensor) -> Means:
        """Over those that are not NaN."""
        known = ~values_NTT.isnan()
        count = known.sum(0)
        mean = values_NTT.nanmean(0)
        square = (values_NTT - mean).square().nan_to_num().sum(0)
        error = torch.where(count > 1, (square / (count - 1).clamp(min=1) / count.clamp(min=1)).sqrt(), torch.nan)
        return cls(mean, error, (values_NTT < 0).sum(0) / count, count)

    @property
    def certain(self) -> Tensor:
        """(T, T) means that differ from 0 by more than chance does in 0.27 % of cases; 0 in place of the others."""
        factors_TT = torch.tensor([[quantile(count) for count in row] for row in self.count.tolist()])
        return torch.where(self.mean.abs() > factors_TT * self.error, self.mean, 0)


@dataclass(frozen=True)
class Affinity:
    """How the tasks of a recipe affect each other.

    Attributes:
        tasks: Their names, T of them.
        measured: Number of measured steps.
        affinity: Of task i (row) onto task j (column): by which part an update for i alone lowers the loss of j.
        cosines: Of the tasks' gradients, by stage of the backbone, `all` first.
    """

    tasks: tuple[str, ...]
    measured: int
    affinity: Means
    cosines: dict[str, Means]

    @property
    def enough(self) -> bool:
        """Whether there are standard errors, without which nothing can be proposed."""
        return self.measured > 1


def estimate_affinity(recipe: Recipe, hooks: Hooks | None = None, *, steps: int = 200, every: int = 5) -> Affinity:
    """Trains a recipe for a while, into no run, and measures at every so many steps how its tasks affect each other.

    Args:
        recipe: A recipe that was checked.
        hooks: Observers of the training.
        steps: Length of the training, with a learning-rate schedule of its own.
        every: Steps from one measured step to the next.

    Raises:
        MtframeError: A part cannot be built or read, no two tasks can be compared in a step, or training failed.
    """
    if every > steps:
        raise RecipeError(f"--every: must be at most the number of steps, {steps}, got {every}")
    options = recipe.train.model_copy(update={"steps": steps, "ema": None, "gradients_every": None})
    assembly = Assembly(recipe.model_copy(update={"train": options}))
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(assembly, RunFolder(folder), hooks or Hooks())
        engine = GradientEngine(trainer.model, exact=True)
        meetings = Meetings(trainer.batches, options.accumulate)
        check_comparable(engine, meetings, "affinity")
        affinities: list[Tensor] = []
        cosines: dict[str, list[Tensor]] = {}
        with _observed(trainer):
            for group in trainer.grouped_batches():
                if meetings.due(trainer.step + 1, every):
                    batches = max((trainer.on_device(batches) for batches in group), key=_count)
                    if _count(batches) > 1:
                        affinity_TT, by_stage = _measure(trainer, engine, batches)
                        affinities.append(affinity_TT)
                        for stage, cosines_TT in by_stage.items():
                            cosines.setdefault(stage, []).append(cosines_TT)
                trainer.train_step(group)
    if not affinities:
        raise RecipeError(f"--steps: {steps} steps have none that is measured; give more, or a smaller --every")
    return Affinity(
        trainer.model.tasks,
        len(affinities),
        Means.of(torch.stack(affinities)),
        {stage: Means.of(torch.stack(values)) for stage, values in cosines.items()},
    )


def lookahead(
    model: MultiTaskModel, engine: GradientEngine, batches: Mapping[str, Batch], lr: float, *, seed: int = 0
) -> tuple[Tensor, dict[str, Any]]:
    """Inter-task affinity at one step (arXiv:2109.04617, eq. 1 to 3), and the tasks' gradients.

        Z[i, j] = 1 - L_j(θ - lr ∂L_i/∂θ) / L_j(θ),

    θ the shared parameters, L_j on the batch of task j, in training mode, in float32 (a small change of θ is lost in
    bf16), with the same random draws for each. NaN where a loss is not above 0, or a task is not in this step. All is
    as it was afterwards, but torch's generator and gradients, which are emptied.

    Args:
        model: In training mode, on the batches' device.
        engine: The model's, which gives exact gradients.
        batches: Batch by task.
        lr: Learning rate of the lookahead's plain gradient step.
        seed: Of what models and losses draw.
    """
    images, lenders, targets = taken_apart(batches)

    def losses() -> dict[str, Tensor]:
        torch.manual_seed(seed)
        outputs = model(images, lenders)
        terms = {task: model.loss(task, outputs[task], targets[task]) for task in model.tasks if task in targets}
        return {task: torch.stack(list(named.values())).sum() for task, named in terms.items()}

    shared = engine.shared_parameters()
    kept = {name: parameter.detach().clone() for name, parameter in shared.items()}
    affinity_TT = torch.full((len(model.tasks),) * 2, torch.nan, dtype=torch.float64)
    with _full_precision(next(iter(images.values())).device):
        before = _values(model, losses)
        with buffers_kept(model):
            _, gradients = engine.gradients(images, lenders, losses)
        model.zero_grad(set_to_none=True)
        for task, of_task in gradients.items():
            with _moved(shared, of_task, lr, kept):
                after = _values(model, losses)
            for other, value in after.items():
                if before[other] > 0:
                    i, j = model.tasks.index(task), model.tasks.index(other)
                    affinity_TT[i, j] = 1 - value / before[other]
    return affinity_TT, gradients


@contextmanager
def _observed(trainer: Trainer) -> Iterator[None]:
    """A training by hand, as observers see it."""
    error: BaseException | None = None
    trainer.hooks.call.training_started(trainer=trainer)
    trainer.model.train()
    try:
        yield
    except BaseException as caught:
        error = caught
        raise
    finally:
        trainer.hooks.call.training_ended(error=error)


def _measure(trainer: Trainer, engine: GradientEngine, batches: dict[str, Batch]) -> tuple[Tensor, dict[str, Tensor]]:
    """(T, T) affinities, and cosines by stage."""
    # As the step that follows will do.
    trainer.scheduler.step(trainer.step)
    lr = trainer.optimizer.param_groups[0]["lr"]
    affinity_TT, gradients = lookahead(trainer.model, engine, batches, lr, seed=trainer.step)
    tasks = trainer.model.tasks
    stages = names_by_stage(trainer.model.sharing, engine.shared_parameters())
    grams = stage_grams([gradients.get(task, {}) for task in tasks], stages)
    cosines = {stage: torch.full_like(affinity_TT, torch.nan) for stage in grams}
    for stage, gram_TT in grams.items():
        for a, b in combinations(range(len(tasks)), 2):
            cosines[stage][a, b] = cosines[stage][b, a] = cosine(gram_TT, a, b)
    return affinity_TT, cosines


def _count(batches: Mapping[str, Batch]) -> int:
    """Of tasks."""
    return sum(len(batch.targets) for batch in batches.values())


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


def _full_precision(device: torch.device) -> Any:
    if device.type != "cuda":
        return nullcontext()
    # A convolution in TF32 would not see so small a change of its weights.
    return torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=False, allow_tf32=False)
