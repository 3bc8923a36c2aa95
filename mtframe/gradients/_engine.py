"""Each task's own gradient of what tasks share, at the price of one backward pass, and what a balancer makes of them.

Tasks have images of their own, which go through the shared layers in one concatenated pass, so the gradient of a task
needs only that task's rows: the backward pass runs once for all rows, and each layer's weight gradient is taken per
task (`_row_parameters`). For a shared layer y = f(x, θ) the gradient of task t is

    g_t = Σ_{rows r of t} (∂y_r / ∂θ)ᵀ ∂L_t/∂y_r.

Where no layer mixes rows (GroupNorm, LayerNorm, BatchNorm with fixed statistics) that is ∂L_t/∂θ exactly, and Σ_t g_t
the gradient of the sum. BatchNorm with joint statistics mixes them: θ also moves the other tasks' images, and these the
mean and variance that t's are normalised with. g_t is then taken as if those images moved as t's do: the statistics
keep their joint values, and respond to t's own images alone (`_row_layers.BatchNorm`). Taking what t's rows contribute
to the joint gradient instead would add up to it, but has in it how these rows move the other tasks' losses, which
cancels in the sum and looks like conflict in its parts. `exact` takes ∂L_t/∂θ, for a backward pass per task.

Tasks on the same images have the same rows: each further task on them costs one more backward pass through
the shared layers.
"""

# Shapes: T tasks of a step, P shared parameters.

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from mtframe.kinds import NamesShared
from mtframe.model import MultiTaskModel

from ._balancing import (
    AnyBalancer,
    Place,
    add_up,
    balance,
    heads_apart,
    objective,
    of_gradients,
    to_be_changed,
    to_the_maps,
    total,
    unweighed,
)
from ._held import Held
from ._passes import Gradients, PassByRows, PassByTask, TaskPass, cut_at_maps
from ._row_parameters import Unattributable
from ._standing_in import standing_in
from ._trial import attribution_of, mixes_rows, why_rows_fail

LOG = logging.getLogger("mtframe")

Images = Mapping[str, Tensor]
Lenders = Mapping[str, str]
Forward = Callable[[], Mapping[str, Tensor]]
_Key = tuple[frozenset[str], tuple[tuple[str, tuple[int, ...]], ...]]


class GradientObserver(Protocol):
    """Looks at the tasks' gradients of a backward pass."""

    def add(self, gradients: Mapping[str, Gradients], weights: Mapping[str, float]) -> None:
        """Takes the gradients of one batch of each task, which now belong to it.

        Args:
            gradients: By task: ∂L_t/∂θ of the shared parameters, divided as the step's are.
            weights: What the balancer gave to each task; none of one that combines gradients.
        """
        ...


class GradientStep:
    """The backward passes of one step of the optimiser: what `GradientEngine.step` gives.

    Args:
        engine: Of the model.
        balancer: As of `GradientEngine.backward`, and so are the others.
    """

    def __init__(
        self,
        engine: GradientEngine,
        balancer: AnyBalancer,
        at: Place,
        divide: int,
        observer: GradientObserver | None,
    ) -> None:
        self._engine, self._balancer, self._at, self._divide = engine, balancer, at, divide
        self._observer, self._held = observer, Held()

    def backward(self, images: Images, lenders: Lenders, forward: Forward) -> None:
        """That of one batch of each task; arguments as of `GradientEngine.backward`."""
        engine, balancer = self._engine, self._balancer
        shared = engine.shared_parameters()
        several = len(images) + len(lenders) > 1 and bool(shared)
        observed = several and self._observer is not None
        weighs = of_gradients(balancer)
        late = weighs and self._at == "parameters" and bool(shared)
        # Of a batch of one task in a step of several, other batches may have other tasks.
        if not (several and (observed or weighs)) and not (late and self._divide > 1):
            (objective(balancer, forward()) / self._divide).backward()
            return
        apart = nullcontext(_nothing) if late else heads_apart(engine.model, balancer)
        with apart as weigh_heads, engine._uncompiled():
            found = engine._take(
                shared, images, lenders, forward, balancer, self._at, self._divide, several=several, observed=observed
            )
            if found.weights is None:
                own = found.derivatives is found.gradients or not observed
                self._held.add(found.losses, found.gradients, None if own else found.derivatives)
                return
            if found.gradients:
                add_up(shared, found.gradients)
                unweighed(found.gradients, found.weights)
            if weighs:
                weigh_heads(found.weights)
        if observed and self._observer is not None:
            self._observer.add(found.derivatives, found.weights)

    def end(self) -> dict[str, float]:
        """Balances what was held, if a balancer weighs it; the weights by task, none of one that gives none."""
        held, shared = self._held, self._engine.shared_parameters()
        losses = held.losses(self._engine.model.tasks)
        if len(losses) < 2:
            if losses:
                add_up(shared, held.gradients)
            return {}
        # What an observer keeps must not be summed up in.
        own = self._observer is not None and held.derivatives is held.gradients
        gradients = to_be_changed(held.gradients, losses) if own else held.gradients
        weights = balance(self._balancer, shared, losses, gradients, self._divide / held.batches)
        if self._observer is not None:
            self._observer.add(held.derivatives, weights)
        return weights


def _nothing(weights: Mapping[str, float]) -> None:
    """Weighs no heads: they have their gradients apart as long as something else says."""


class GradientEngine:
    """The backward pass of a step, with any balancer: of losses, of gradients, or of gradients at the maps.

    Shared are the parameters that `sharing.shared_parameters()` gives (`mtframe.kinds.NamesShared`), or all of
    `sharing`. Trial passes before the first step (`_trial`) show whether rows tell the tasks apart. Where they do not,
    or where the sharing scheme does not say whose rows it passes (`mtframe.model.rows_of`), gradients come from a
    backward pass per task, which is exact and slower and is logged once; they are then ∂L_t/∂θ, with BatchNorm too.
    Compiled modules run uncompiled where tasks are told apart.

    Args:
        model: The model, on its device.
        exact: Take a backward pass per task where BatchNorm mixes rows.
    """

    def __init__(self, model: MultiTaskModel, *, exact: bool = False) -> None:
        self.model = model
        self.exact = exact
        # By what is trained, tasks and their images' shapes: why rows do not tell the tasks apart, None if they do.
        self._tried: dict[_Key, str | None] = {}
        self._tried_backward: set[tuple[frozenset[str], tuple[str, ...]]] = set()

    def backward(
        self,
        images: Images,
        lenders: Lenders,
        forward: Forward,
        balancer: AnyBalancer,
        *,
        at: Place = "parameters",
        divide: int = 1,
        observer: GradientObserver | None = None,
    ) -> None:
        """Adds gradients to the parameters' `.grad`: balanced ones for what is shared, each task's own for the rest.

        A balancer of gradients does not balance a step of one task.

        Args:
            images: By task, as the model takes them.
            lenders: Further tasks, each with the task whose images it uses.
            forward: Runs `model` once on these; gives the loss of each task, a scalar, in the order of the balancer's.
            balancer: Makes one loss of the tasks', or weighs their gradients; at `maps`, the latter by `weigh`.
            at: Of which gradients it gets the inner products: those of the shared parameters, or those of the feature
                maps that heads are given, as MGDA-UB (arXiv:1810.04650, sec. 3.3). The weighed maps' gradients go
                through all of `sharing` in one backward pass, whichever images the tasks use, a task's own stages
                included; but tasks with images of their own are orthogonal there, so it suits tasks on the same images.
            divide: What all gradients are divided by. The balancer sees them undivided.
            observer: Is given each task's gradient and weight, of a step of several tasks. The parameters get what they
                get without, up to the order of summation.
        """
        with self.step(balancer, at=at, divide=divide, observer=observer) as step:
            step.backward(images, lenders, forward)

    @contextmanager
    def step(
        self,
        balancer: AnyBalancer,
        *,
        at: Place = "parameters",
        divide: int = 1,
        observer: GradientObserver | None = None,
    ) -> Iterator[GradientStep]:
        """Within it, the backward passes of a step that accumulates several batches.

        A balancer that weighs the gradients of the shared parameters gets those of the whole step, at its end: each
        task's mean over the batches, and its mean loss over those in which it takes part. One of losses, and one at the
        maps, has each batch as it comes: what it weighs is gone after it.

        Args:
            balancer: As of `backward`, and so is `at`.
            at: Likewise.
            divide: The number of batches.
            observer: Is given the gradients of the step where these are balanced, else those of each batch.
        """
        late = of_gradients(balancer) and at == "parameters"
        step = GradientStep(self, balancer, at, divide, observer)
        with heads_apart(self.model, balancer) if late else nullcontext(_nothing) as weigh_heads:
            yield step
            weigh_heads(step.end())

    def gradients(
        self, images: Images, lenders: Lenders, forward: Forward
    ) -> tuple[dict[str, Tensor], dict[str, Gradients]]:
        """The tasks' losses (detached) and, by task and name, gradients of the shared parameters.

        Adds the gradients of what is not shared to its `.grad`. Arguments as in `backward`.
        """
        shared = self.shared_parameters()
        with self._uncompiled():
            by_rows = self._by_rows(shared, images, exact=self.exact)
            with self._traced(shared, images, lenders, forward, by_rows=by_rows) as traced:
                total(traced.losses).backward()
                return {task: loss.detach() for task, loss in traced.losses.items()}, traced.gradients()

    def shared_parameters(self) -> dict[str, nn.Parameter]:
        """The parameters that are shared and trained, by name in `model.sharing`."""
        sharing = self.model.sharing
        chosen = set(sharing.shared_parameters() if isinstance(sharing, NamesShared) else sharing.parameters())
        return {name: p for name, p in sharing.named_parameters() if p in chosen and p.requires_grad}

    def _take(
        self,
        shared: Mapping[str, nn.Parameter],
        images: Images,
        lenders: Lenders,
        forward: Forward,
        balancer: AnyBalancer,
        at: Place,
        divide: int,
        *,
        several: bool,
        observed: bool,
    ) -> _Taken:
        """The backward pass down to the maps, and from there for each task, or for all at once where that will do."""
        late = of_gradients(balancer) and at == "parameters"
        # Gradients that are weighed at the maps are separated by task for an observer only, who wants the derivative.
        by_rows = several and (late or observed) and self._by_rows(shared, images, exact=self.exact or not late)
        with self._traced(shared, images, lenders, forward, by_rows=by_rows) as traced:
            weights = to_the_maps(balancer, traced, lenders, at, divide)
            losses = {task: loss.detach() for task, loss in traced.losses.items()}
            if not late and not observed:
                traced.cut.pull(list(losses))
                return _Taken(losses, weights, {}, {})
            gradients = traced.gradients(keep=observed)
            return _Taken(losses, weights, gradients, traced.derivatives() if observed else {})

    @contextmanager
    def _traced(
        self, shared: Mapping[str, nn.Parameter], images: Images, lenders: Lenders, forward: Forward, *, by_rows: bool
    ) -> Iterator[TaskPass]:
        """Runs a forward pass that is cut at the maps; within it, the backward pass can follow."""
        with ExitStack() as stack:
            traced = self._forward_by_rows(stack, shared, images, lenders, forward) if by_rows else None
            if traced is None:
                cut = stack.enter_context(cut_at_maps(self.model.sharing))
                traced = PassByTask(cut, forward(), shared)
            yield traced

    def _forward_by_rows(
        self, stack: ExitStack, shared: Mapping[str, nn.Parameter], images: Images, lenders: Lenders, forward: Forward
    ) -> TaskPass | None:
        """None if rows turn out not to tell the tasks apart."""
        sharing = self.model.sharing
        attribution, mixed = attribution_of(sharing, images), mixes_rows(sharing)
        with ExitStack() as attempt:
            stands = attempt.enter_context(standing_in(sharing, shared, attribution))
            cut = attempt.enter_context(cut_at_maps(sharing))
            try:
                traced = PassByRows(cut, forward(), attribution, stands, lenders, mixed=mixed)
            except Unattributable as error:
                # Not met in the trial passes. The pass is repeated, which moves running statistics once more.
                self._give_up(shared, images, str(error))
                return None
            stack.push(attempt.pop_all())
            return traced

    def _by_rows(self, parameters: Mapping[str, nn.Parameter], images: Images, *, exact: bool) -> bool:
        """Whether rows tell the tasks apart, for batches like these; `exact` unless BatchNorm mixes them."""
        if exact and mixes_rows(self.model.sharing):
            return False
        key = _key(parameters, images)
        if key not in self._tried:
            self._tried[key] = None
            # Which uses are seen does not depend on the images' size.
            uses = frozenset(parameters), tuple(images)
            reason = why_rows_fail(self.model, parameters, images, backward=uses not in self._tried_backward)
            if reason is not None:
                self._give_up(parameters, images, reason)
            else:
                self._tried_backward.add(uses)
        return self._tried[key] is None

    def _give_up(self, parameters: Iterable[str], images: Images, reason: str) -> None:
        if reason not in self._tried.values():
            LOG.warning("gradients take a backward pass a task, since rows do not tell tasks apart: %s", reason)
        self._tried[_key(parameters, images)] = reason

    def _uncompiled(self) -> AbstractContextManager[Any]:
        compiled = any(
            "_orig_mod" in module._modules or module._compiled_call_impl is not None
            for module in self.model.sharing.modules()
        )
        return torch.compiler.set_stance("force_eager") if compiled else nullcontext()


@dataclass(frozen=True, slots=True)
class _Taken:
    """What a backward pass has come to.

    Attributes:
        losses: By task, detached.
        weights: By task, those that its gradients have by now; None if they are yet to be weighed.
        gradients: Of the shared parameters by task; none where all tasks' went to the parameters at once.
        derivatives: ∂L_t/∂θ times the task's weight, for an observer; none without.
    """

    losses: dict[str, Tensor]
    weights: dict[str, float] | None
    gradients: dict[str, Gradients]
    derivatives: dict[str, Gradients]


def _key(parameters: Iterable[str], images: Images) -> _Key:
    # Parts may begin to train later, and with them layers that mix rows.
    return frozenset(parameters), tuple((task, tuple(pixels.shape)) for task, pixels in images.items())
