"""Learning without Forgetting: tasks that are not trained keep answering as the run before did.

The whole network trains on the new task's images, and on the same images the heads of the old tasks are held to what
the old network answers (Li & Hoiem, arXiv:1606.09282): no data of the old tasks is needed. That paper compares softened
class probabilities; heads here give numbers of any kind, so raw outputs are compared, as Ba & Caruana (arXiv:1312.6184)
do with logits and Shmelkov et al. (arXiv:1708.06977) with those of detectors. For a task with outputs o, s the
student's and t the teacher's, its loss is

    λ · mean over o of  mean((s_o − t_o)²) / var(t_o),

the part of the teacher's variance that the student misses, whatever the outputs' units. Where the teacher's answers
hardly differ, their spread counts as 1 % of their size.

BatchNorm normalises with the old statistics all the while, but in parts that are the new task's own: those of the
new images would be the old tasks' no longer, and what is compared would differ before the first step.
"""

# Shapes: B images, H height, W width.

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from hashlib import sha256

import torch
from torch import Tensor, nn

from mtframe.assembly import Assembly
from mtframe.errors import RecipeError
from mtframe.model import MultiTaskModel, freeze_statistics
from mtframe.paths import regular

from ._inputs import ModelInputs
from ._own import is_within, own_parts
from ._start import Start

Outputs = Mapping[str, Mapping[str, Tensor]]


class Distillation:
    """Compares tasks that are not trained with the model of the run that training started from.

    Args:
        assembly: The recipe's parts.
        model: The model that is trained; BatchNorm in it keeps the old statistics from now on.

    Raises:
        RecipeError: `train.start` is no run, or the run does not have a task that is to be kept.

    Attributes:
        teacher: The old run's model.
        tasks: The tasks that are kept.
        digest: Of the teacher's weights, SHA-256 in hexadecimal digits: a resumed run needs the same ones.
    """

    def __init__(self, assembly: Assembly, model: MultiTaskModel) -> None:
        recipe, start = assembly.recipe, Start.open(str(assembly.recipe.train.start))
        self.tasks = tuple(task for task in assembly.tasks if task not in recipe.trained)
        old = start.assembly
        if old is None or (unknown := [task for task in self.tasks if task not in old.tasks]):
            what = "is of no run" if old is None else f"has no task {unknown[0]!r}"
            raise RecipeError(f"train.distil: {recipe.train.start} {what}, so nothing there can be learned from")
        self.teacher = start.model()
        self.digest = sha256(regular(start.file).read_bytes()).hexdigest()
        self.teacher.eval().requires_grad_(False)
        for task in self.tasks:
            here, there = (_shapes(network.heads[task]) for network in (model, self.teacher))
            if here != there:
                raise RecipeError(f"train.distil: the head of {task!r} is another than in {recipe.train.start}")
        self.weight = recipe.train.distil or 0.0
        self._sizes = {task: recipe.tasks[task].size for task in self.tasks}
        self._here, self._there = _group_of(assembly), _group_of(old)
        _keep_statistics(model, recipe.trained)

    def extended(self, inputs: ModelInputs) -> tuple[ModelInputs, dict[str, dict[str, Tensor]]]:
        """Shows the trained tasks' images to the kept tasks.

        A task whose images have the new ones' size sees them in the same pass, another one resized to its own.

        Args:
            inputs: Of the trained tasks.

        Returns:
            Those of all tasks, with targets of the trained ones only, and the teacher's outputs by kept task.
        """
        images, lenders = dict(inputs.images), dict(inputs.lenders)
        for task in self.tasks:
            together = [other for other in images if self._here[other] == self._here[task]]
            if together:
                lenders[task] = together[0]
            else:
                images[task] = _resized(next(iter(inputs.images.values())), self._sizes[task])
        answers = self._answers({task: images[lenders.get(task, task)] for task in self.tasks})
        return replace(inputs, images=images, lenders=lenders), answers

    def losses(self, outputs: Outputs, answers: Outputs) -> dict[str, dict[str, Tensor]]:
        """The loss terms of the kept tasks: one each, a scalar.

        Args:
            outputs: Of the model, by task and name.
            answers: Of the teacher, likewise.
        """
        return {task: {"distillation": self.weight * _unexplained(outputs[task], answers[task])} for task in self.tasks}

    @torch.no_grad()
    def _answers(self, pixels: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
        images: dict[str, Tensor] = {}
        lenders: dict[str, str] = {}
        for task, its in pixels.items():
            same = [other for other in images if self._there[other] == self._there[task] and images[other] is its]
            if same:
                lenders[task] = same[0]
            else:
                images[task] = its
        return self.teacher(images, lenders)


def _unexplained(outputs: Mapping[str, Tensor], answers: Mapping[str, Tensor]) -> Tensor:
    """Mean over a head's outputs of the part of the teacher's variance that the student misses; a scalar."""
    return torch.stack(list(_parts(outputs, answers))).mean()


def _parts(outputs: Mapping[str, Tensor], answers: Mapping[str, Tensor]) -> Iterator[Tensor]:
    for name, answer in answers.items():
        if answer.is_floating_point():
            wanted = answer.float()
            spread = wanted.var(correction=0).clamp(min=1e-4 * wanted.square().mean() + 1e-12)
            yield (outputs[name].float() - wanted).square().mean() / spread


def _resized(images: Tensor, size: int) -> Tensor:
    return nn.functional.interpolate(images.float(), (size, size), mode="bilinear", antialias=True)


def _group_of(assembly: Assembly) -> dict[str, int]:
    return {task: number for number, group in enumerate(assembly.groups()) for task in group}


def _shapes(module: nn.Module) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in module.state_dict().items()}


def _keep_statistics(model: MultiTaskModel, trained: tuple[str, ...]) -> None:
    """Stops the BatchNorm statistics of all that is not a trained task's own."""
    own = [part for part, task in own_parts(model).items() if task in trained]
    for name, module in model.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and not is_within(name, own):
            freeze_statistics(module)
