"""The tasks' gradients of a step that accumulates several batches, until they are balanced."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from ._passes import Gradients


class Held:
    """Sums of what several batches give: each task's gradient of what is shared, and its losses.

    Attributes:
        batches: How many were added.
        gradients: By task and name of a parameter.
        derivatives: ∂L_t/∂θ likewise, for an observer: the gradients themselves where these are the derivatives.
    """

    def __init__(self) -> None:
        self.batches = 0
        self.gradients: dict[str, Gradients] = {}
        self.derivatives = self.gradients
        self._losses: dict[str, list[Tensor]] = {}

    def add(
        self,
        losses: Mapping[str, Tensor],
        gradients: Mapping[str, Gradients],
        derivatives: Mapping[str, Gradients] | None = None,
    ) -> None:
        """Adds those of one batch, which now belong to this; `derivatives` where they are others."""
        self.batches += 1
        for task, loss in losses.items():
            self._losses.setdefault(task, []).append(loss)
        if self.derivatives is not self.gradients or derivatives is not None:
            if self.derivatives is self.gradients:
                self.derivatives = _copied(self.gradients)
            _add(self.derivatives, _copied(gradients) if derivatives is None else derivatives)
        _add(self.gradients, gradients)

    def losses(self, order: tuple[str, ...]) -> dict[str, Tensor]:
        """By task in this order, the mean over the batches in which it took part."""
        return {task: sum(losses[1:], losses[0]) / len(losses) for task in order if (losses := self._losses.get(task))}


def _add(total: dict[str, Gradients], gradients: Mapping[str, Gradients]) -> None:
    for task, of_task in gradients.items():
        kept = total.setdefault(task, {})
        for name, gradient in of_task.items():
            before = kept.get(name)
            kept[name] = gradient if before is None else before if gradient is None else before.add_(gradient)


def _copied(gradients: Mapping[str, Gradients]) -> dict[str, Gradients]:
    return {
        task: {name: None if gradient is None else gradient.clone() for name, gradient in of_task.items()}
        for task, of_task in gradients.items()
    }
