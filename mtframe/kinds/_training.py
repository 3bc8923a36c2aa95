"""Contracts of how tasks are trained together: balancers, schedules and presets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, runtime_checkable

if TYPE_CHECKING:
    from torch import Tensor


class Balancer(Protocol):
    """The tasks' losses to the one that is differentiated.

    Wired, here and in the other sort: `tasks` (their names); for a family, `member`.

    Of either sort: it draws from torch's global generator only, which is seeded at each step. One that is a
    `torch.nn.Module` has its parameters trained with the model's, without weight decay. Optional: `KeepsState`,
    `CountsFailures`, `WeighsHeads`, `KnowsPresent`; `Family`, `DescribesMembers`, `HasExampleMember`.
    """

    def __call__(self, losses: Mapping[str, Tensor]) -> Tensor:
        """Scalars by task to one scalar."""
        ...


@runtime_checkable
class GradientBalancer(Protocol):
    """The other sort of balancer: weighs the tasks' gradients of what they share. Wired: `tasks` (their names).

    Heads and losses keep the gradient of their own task's loss. Tasks that take no part in a step are left out, and a
    step of one task is not balanced. Where a step accumulates several batches, it gets each task's mean gradient over
    them, once; at the feature maps (`train.balance_at`) each batch is balanced.

    Instead of `weigh` it may have what `GradientCombiner` has.
    """

    def weigh(self, gram: Tensor, losses: Tensor) -> Tensor:
        """(T, T) inner products of the gradients and (T,) losses to (T,) weights, in the order of `tasks`.

        All float64 on the CPU, detached.
        """
        ...


@runtime_checkable
class GradientCombiner(Protocol):
    """A balancer of gradients that needs the gradients themselves; in all else a `GradientBalancer`."""

    def combine(self, gradients: Tensor, losses: Tensor) -> Tensor:
        """(T, P) gradients and (T,) losses to (P,), in the parameters' precision and on their device."""
        ...


@runtime_checkable
class KeepsState(Protocol):
    """A balancer that remembers something from step to step, with which a run resumes exactly."""

    def state_dict(self) -> dict[str, Any]:
        """What it remembers, of tensors, numbers and text."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> Any:
        """Takes it over."""
        ...


@runtime_checkable
class CountsFailures(Protocol):
    """A balancer whose solver may not converge.

    Attributes:
        failures: How often it did not; the log says so at the end of training.
    """

    failures: int


@runtime_checkable
class WeighsHeads(Protocol):
    """A balancer of gradients whose weights may be meant for the heads' and losses' gradients too.

    Attributes:
        weighs_heads: Whether they are. What a sharing scheme keeps for one task has that task's own gradient always.
    """

    weighs_heads: bool


@runtime_checkable
class KnowsPresent(Protocol):
    """A balancer of gradients that wants to know whose gradients it is given.

    Attributes:
        present: The tasks of the step; set before each call.
    """

    present: Sequence[str]


class Schedule(Protocol):
    """Which tasks train when, as a pure function of the step: a resumed run asks it, and nothing is kept.

    Wired: `lengths` (by task that has images of its own, the batches that show each of them once); `every` (by the same
    tasks, k: it takes part in every k-th step). A recipe with an `every` above 1 is refused by a schedule that does not
    ask for it.

    Attributes:
        steps_per_epoch: Steps that show every image of every task at least once.
    """

    steps_per_epoch: int

    def draws(self, steps: int) -> Mapping[str, int]:
        """By task, how many batches the first `steps` steps take: 0 of 0 steps.

        A step takes at most one batch of a task, and one batch at least. A step a million on must not cost more than
        the first.
        """
        ...


class Preset(Protocol):
    """A preset: names (or name and options) of parts, taken where the recipe leaves them out.

    Plain class attributes and no heavy import, so that reading a recipe stays fast.
    """

    dataset: ClassVar[str]
    transform: ClassVar[str | dict[str, Any]]
    head: ClassVar[str | dict[str, Any]]
    loss: ClassVar[str | dict[str, Any]]
    metrics: ClassVar[tuple[str | dict[str, Any], ...]]
    size: ClassVar[int]
    batch_size: ClassVar[int]
    flip_test: ClassVar[bool]
    test_scales: ClassVar[Sequence[float]]
