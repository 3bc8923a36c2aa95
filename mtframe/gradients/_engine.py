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
cancels in the sum and looks like conflict in its parts. `exact` takes ∂L_t/∂θ, for a backward pass a task.

Tasks that look at the same images have the same rows: each further task on them costs one more backward pass through
the shared layers.
"""

# Shapes: T tasks of a step, P shared parameters.

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mtframe.model import MultiTaskModel

from ._gram import combined, gram_matrix, weighted_sum
from ._row_parameters import Attribution, StandIn, Unattributable, standing_in

LOG = logging.getLogger("mtframe")

# By name of a shared parameter; None where the task does not reach it.
Gradients = dict[str, Tensor | None]


class GradientEngine:
    """Gradients for a balancer that weighs them (see `mtframe.kinds.GradientBalancer`).

    Shared are the parameters that `sharing.shared_parameters()` gives, or all of `sharing` if it has no such method.
    A first trial run, with the images of one task at a time poisoned by NaN, shows whether each use of them sees rows
    in the images' order, and whether a layer other than BatchNorm mixes them; a trial backward pass, whether each use
    was seen. Where one was not, or where the sharing scheme does not say whose rows it passes
    (`mtframe.model.rows_of`), gradients come from a backward pass a task, which is exact and slower and is logged once;
    they are then ∂L_t/∂θ, with BatchNorm too. Compiled modules run uncompiled.

    Args:
        model: The model, on its device.
        exact: Take a backward pass a task where BatchNorm mixes rows.
    """

    def __init__(self, model: MultiTaskModel, *, exact: bool = False) -> None:
        self.model = model
        self.exact = exact
        self._tried: dict[Any, str | None] = {}
        self._seen: set[tuple[str, ...]] = set()

    def backward(
        self,
        images: Mapping[str, Tensor],
        lenders: Mapping[str, str],
        forward: Callable[[], Mapping[str, Tensor]],
        balancer: Any,
        *,
        at: Literal["parameters", "maps"] = "parameters",
        divide: int = 1,
    ) -> None:
        """Adds gradients to the parameters' `.grad`: balanced ones for what is shared, each task's own for the rest.

        A step of one task is not balanced.

        Args:
            images: By task, as the model takes them.
            lenders: Further tasks, each with the task whose images it looks at.
            forward: Runs `model` once on these; gives the loss of each task, a scalar, in the order of the balancer's.
            balancer: Has `weigh` or `combine`; at `maps`, `weigh`.
            at: Of which gradients it gets the inner products: those of the shared parameters, or those of the feature
                maps that heads are given, as MGDA-UB (arXiv:1810.04650, sec. 3.3). The weighed maps' gradients go
                through all of `sharing` in one backward pass, whatever the tasks look at, a task's own stages
                included; but tasks with images of their own are orthogonal there, so it suits tasks on the same images.
            divide: All gradients are divided by so much. The balancer sees them undivided.
        """
        with self._heads_apart(balancer) as weigh_heads, self._uncompiled():
            parameters = self.shared_parameters()
            if len(images) + len(lenders) == 1 or not parameters:
                backward_of_sum(forward(), divide)
            elif at == "maps":
                weigh_heads(self._balance_maps(lenders, forward, balancer, divide))
            else:
                losses, gradients = self._gradients(parameters, images, lenders, forward, divide)
                weigh_heads(balance(parameters, losses, gradients, balancer, divide))

    def gradients(
        self, images: Mapping[str, Tensor], lenders: Mapping[str, str], forward: Callable[[], Mapping[str, Tensor]]
    ) -> tuple[dict[str, Tensor], dict[str, Gradients]]:
        """The tasks' losses (detached) and, by task and name, gradients of the shared parameters.

        Adds the gradients of what is not shared to its `.grad`. Arguments as in `backward`.
        """
        with self._uncompiled():
            return self._gradients(self.shared_parameters(), images, lenders, forward, 1)

    def shared_parameters(self) -> dict[str, nn.Parameter]:
        """By name in `model.sharing`: those that are shared and trained."""
        sharing: Any = self.model.sharing
        given = getattr(sharing, "shared_parameters", None)
        chosen = set(sharing.parameters() if given is None else given())
        return {name: p for name, p in sharing.named_parameters() if p in chosen and p.requires_grad}

    def _gradients(
        self,
        parameters: Mapping[str, nn.Parameter],
        images: Mapping[str, Tensor],
        lenders: Mapping[str, str],
        forward: Callable[[], Mapping[str, Tensor]],
        divide: int,
        look: Callable[[_Cut, Mapping[str, StandIn]], None] | None = None,
    ) -> tuple[dict[str, Tensor], dict[str, Gradients]]:
        """`look` is given the graph of a pass by rows, to take more of it."""
        if self._by_rows(parameters, images):
            try:
                attribution = Attribution(tuple(images), self._fixed())
                with standing_in(self.model.sharing, parameters, attribution) as stands, self._cut_at_maps() as cut:
                    losses = backward_of_sum(forward(), divide)
                    found = _passes_by_rows(cut, attribution, stands, lenders, keep=look is not None)
                    if look is not None:
                        attribution.through_all_rows = True
                        look(cut, stands)
                    return losses, found
            except Unattributable as error:
                # Not met in the trial run. The pass is repeated, which moves running statistics once more.
                self._give_up(images, str(error))
        with self._cut_at_maps() as cut:
            losses = backward_of_sum(forward(), divide)
            return losses, passes_by_task(cut, parameters)

    def _balance_maps(
        self, lenders: Mapping[str, str], forward: Callable[[], Mapping[str, Tensor]], balancer: Any, divide: int
    ) -> dict[str, float]:
        with self._cut_at_maps() as cut:
            losses = backward_of_sum(forward(), divide)
        weights = map_weights(cut, losses, lenders, balancer, divide)
        pairs = [
            (output, gradient * weight) for task, weight in weights.items() for output, gradient in cut.pairs([task])
        ]
        torch.autograd.backward([output for output, _ in pairs], [gradient for _, gradient in pairs])
        return weights

    def _by_rows(self, parameters: Mapping[str, nn.Parameter], images: Mapping[str, Tensor]) -> bool:
        """Whether rows tell the tasks apart, for batches like these."""
        if self.exact and mixes_rows(self.model.sharing):
            return False
        key = _key(images)
        if key not in self._tried:
            self._tried[key] = None
            reason = self._trial(parameters, images)
            if reason is not None:
                self._give_up(images, reason)
        return self._tried[key] is None

    def _give_up(self, images: Mapping[str, Tensor], reason: str) -> None:
        if reason not in self._tried.values():
            LOG.warning("gradients take a backward pass a task, since rows do not tell tasks apart: %s", reason)
        self._tried[_key(images)] = reason

    def _trial(self, parameters: Mapping[str, nn.Parameter], images: Mapping[str, Tensor]) -> str | None:
        """Why rows do not tell tasks apart in such batches, or None. Leaves buffers and random draws as they were."""
        device = self.model.mean.device
        try:
            with torch.random.fork_rng([device] if device.type == "cuda" else []), buffers_kept(self.model.sharing):
                for poisoned in images:
                    self._try_poisoned(parameters, images, poisoned)
                # Which uses are seen does not hang on the images' size.
                if tuple(images) not in self._seen:
                    self._try_backward(parameters, images)
                    self._seen.add(tuple(images))
        except Unattributable as error:
            return str(error)
        except Exception as error:
            # Whatever a backbone does with parameters that stand-ins cannot do; the plain pass may well work.
            return f"{type(error).__name__}: {error}".splitlines()[0]
        return None

    @torch.no_grad()
    def _try_poisoned(
        self, parameters: Mapping[str, nn.Parameter], images: Mapping[str, Tensor], poisoned: str
    ) -> None:
        """A pass with a task's images NaN, as in training, but for BatchNorm, which has a backward pass of its own."""
        norms = {module: module.training for module in self.model.sharing.modules() if isinstance(module, _BatchNorm)}
        dtype = self.model.mean.dtype
        try:
            for module in norms:
                module.training = False
            fake = {
                task: torch.full_like(pixels, torch.nan if task == poisoned else 1.0, dtype=dtype)
                for task, pixels in images.items()
            }
            attribution = Attribution(tuple(images), self._fixed(), poisoned)
            with standing_in(self.model.sharing, parameters, attribution):
                maps = self.model.sharing(fake)
        finally:
            for module, mode in norms.items():
                module.training = mode
        _check_plain(maps)
        for task, of_task in maps.items():
            if task != poisoned and any(m.isnan().any() for m in of_task):
                raise Unattributable(f"the maps of {task} depend on the images of {poisoned}")

    def _try_backward(self, parameters: Mapping[str, nn.Parameter], images: Mapping[str, Tensor]) -> None:
        """A backward pass: parameters have a gradient by way of their stand-ins if they have one, and only so."""
        dtype = self.model.mean.dtype
        fake = {task: pixels.to(dtype) for task, pixels in images.items()}
        values = list(parameters.values())
        plain = _reached(self.model.sharing(fake), values)
        attribution = Attribution(tuple(images), self._fixed())
        with standing_in(self.model.sharing, parameters, attribution) as stands:
            leaves = [leaf for stand in stands.values() for leaf in stand.leaves]
            by_rows = _reached(self.model.sharing(fake), [*leaves, *values])
        seen, past = by_rows[: len(leaves)], by_rows[len(leaves) :]
        for number, (name, wanted) in enumerate(zip(parameters, plain, strict=True)):
            tasks = len(images)
            if past[number] or any(seen[number * tasks : (number + 1) * tasks]) != wanted:
                raise Unattributable(f"{name} is used past its module: by another name, or in a function of its own")

    def _fixed(self) -> frozenset[int]:
        sharing = self.model.sharing
        return frozenset(t.untyped_storage().data_ptr() for t in (*sharing.parameters(), *sharing.buffers()))

    @contextmanager
    def _cut_at_maps(self) -> Iterator[_Cut]:
        """Ends the heads' backward pass at the maps they are given."""
        cut = _Cut()
        handle = self.model.sharing.register_forward_hook(cut)
        try:
            yield cut
        finally:
            handle.remove()

    @contextmanager
    def _heads_apart(self, balancer: Any) -> Iterator[Callable[[Mapping[str, float]], None]]:
        """Gives what weighs this step's gradients of heads and losses, if the balancer wants that."""
        weighed = getattr(balancer, "weighs_heads", False)
        own = {
            task: [*self.model.heads[task].parameters(), *self.model.losses[task].parameters()]
            for task in (self.model.tasks if weighed else ())
        }
        before = {p: p.grad for parameters in own.values() for p in parameters}
        for parameter in before:
            parameter.grad = None

        def weigh(weights: Mapping[str, float]) -> None:
            for task, weight in weights.items():
                for parameter in own.get(task, ()):
                    if parameter.grad is not None:
                        parameter.grad.mul_(weight)

        yield weigh
        for parameter, gradient in before.items():
            accumulate(parameter, gradient)

    def _uncompiled(self) -> AbstractContextManager[Any]:
        compiled = any(
            hasattr(module, "_orig_mod") or module._compiled_call_impl is not None
            for module in self.model.sharing.modules()
        )
        return torch.compiler.set_stance("force_eager") if compiled else nullcontext()


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


def _reached(maps: Mapping[str, Sequence[Tensor]], inputs: Sequence[Tensor]) -> list[bool]:
    """Which of these a backward pass from all maps comes to."""
    _check_plain(maps)
    total = sum(m.float().sum() for of_task in maps.values() for m in of_task if m.requires_grad)
    if not isinstance(total, Tensor):
        return [False] * len(inputs)
    return [gradient is not None for gradient in torch.autograd.grad(total, inputs, allow_unused=True)]


class _Cut:
    """A forward hook of the sharing scheme: keeps the maps by task, and gives heads leaves of the same values."""

    def __init__(self) -> None:
        self.outputs: dict[str, list[Tensor]] = {}
        self.leaves: dict[str, list[Tensor]] = {}

    def __call__(self, module: nn.Module, inputs: Any, maps: Mapping[str, Sequence[Tensor]]) -> Any:
        _check_plain(maps)
        self.outputs = {task: list(of_task) for task, of_task in maps.items()}
        self.leaves = {task: [m.detach().requires_grad_() for m in of_task] for task, of_task in maps.items()}
        return self.leaves

    def pairs(self, tasks: Sequence[str]) -> list[tuple[Tensor, Tensor]]:
        """The maps of these tasks that what is shared has a part in, each with the gradient that its head has left."""
        return [
            (output, leaf.grad)
            for task in tasks
            for output, leaf in zip(self.outputs[task], self.leaves[task], strict=True)
            if leaf.grad is not None and output.requires_grad
        ]

    def pull(self, tasks: Sequence[str], *, keep: bool) -> None:
        """The backward pass of these tasks' gradients through what is shared; `keep` it for another one."""
        if pairs := self.pairs(tasks):
            torch.autograd.backward([p[0] for p in pairs], [p[1] for p in pairs], retain_graph=keep)


def _passes_by_rows(
    cut: _Cut,
    attribution: Attribution,
    stands: Mapping[str, StandIn],
    lenders: Mapping[str, str],
    *,
    keep: bool = False,
) -> dict[str, Gradients]:
    """One backward pass for all tasks with images of their own, one for a second task on each of these, and so on."""
    viewers = {owner: [owner, *(task for task in lenders if lenders[task] == owner)] for owner in attribution.slots}
    count = max(len(tasks) for tasks in viewers.values())
    found: dict[str, Gradients] = {}
    for number in range(count):
        viewing = {owner: tasks[number] for owner, tasks in viewers.items() if number < len(tasks)}
        cut.pull(list(viewing.values()), keep=keep or number + 1 < count)
        for owner, task in viewing.items():
            slot = attribution.slots[owner]
            found[task] = {name: _taken(stand.leaves[slot]) for name, stand in stands.items()}
        for stand in stands.values():
            # Zeros, of tasks that this pass was not of.
            for leaf in stand.leaves:
                leaf.grad = None
    return found


def passes_by_task(cut: _Cut, parameters: Mapping[str, nn.Parameter]) -> dict[str, Gradients]:
    """A backward pass a task, through the one graph."""
    before = {name: _taken(parameter) for name, parameter in parameters.items()}
    found: dict[str, Gradients] = {}
    for number, task in enumerate(cut.leaves, 1):
        cut.pull([task], keep=number < len(cut.leaves))
        found[task] = {name: _taken(parameter) for name, parameter in parameters.items()}
    for name, gradient in before.items():
        parameters[name].grad = gradient
    return found


def balance(
    parameters: Mapping[str, nn.Parameter],
    losses: Mapping[str, Tensor],
    gradients: Mapping[str, Gradients],
    balancer: Any,
    divide: int,
) -> dict[str, float]:
    """Adds the balanced gradient to the parameters'. Returns weights by task; none of a balancer that combines."""
    if hasattr(balancer, "combine"):
        balancer.present = tuple(losses)
        found = combined(gradients, list(losses), parameters, balancer.combine, _stacked(losses), divide)
        for name, gradient in found.items():
            accumulate(parameters[name], gradient)
        return {}
    weights = _weights(losses, gradients, balancer, divide)
    for name, parameter in parameters.items():
        accumulate(parameter, weighted_sum([(gradients[task][name], weight) for task, weight in weights.items()]))
    return weights


def _weights(
    losses: Mapping[str, Tensor], gradients: Mapping[str, Gradients], balancer: Any, divide: int
) -> dict[str, float]:
    balancer.present = tuple(losses)
    gram = gram_matrix([gradients[task] for task in losses]) * divide**2
    return dict(zip(losses, balancer.weigh(gram, _stacked(losses)).tolist(), strict=True))


def map_weights(
    cut: _Cut, losses: Mapping[str, Tensor], lenders: Mapping[str, str], balancer: Any, divide: int
) -> dict[str, float]:
    """What the balancer gives to each task for the gradients of its maps. Tasks on the same images share maps."""
    maps = {
        task: {f"{lenders.get(task, task)}/{i}": leaf.grad for i, leaf in enumerate(cut.leaves[task])}
        for task in losses
    }
    return _weights(losses, maps, balancer, divide)


def _stacked(losses: Mapping[str, Tensor]) -> Tensor:
    return torch.tensor([loss.item() for loss in losses.values()], dtype=torch.float64)


def backward_of_sum(losses: Mapping[str, Tensor], divide: int) -> dict[str, Tensor]:
    """From the losses' plain sum; gives them detached."""
    # A running sum, not a stack, which would tie the tasks' graphs together.
    total: Tensor = sum(losses.values())  # type: ignore[assignment]
    (total / divide).backward()
    return {task: loss.detach() for task, loss in losses.items()}


def accumulate(parameter: Tensor, gradient: Tensor | None) -> None:
    """Adds to a parameter's `.grad`, which may keep the tensor."""
    if gradient is not None:
        parameter.grad = gradient if parameter.grad is None else parameter.grad.add_(gradient)


def _taken(tensor: Tensor) -> Tensor | None:
    gradient, tensor.grad = tensor.grad, None
    return gradient


def _check_plain(maps: Mapping[str, Sequence[Tensor]]) -> None:
    for stand in (m for of_task in maps.values() for m in of_task if isinstance(m, StandIn)):
        raise Unattributable(
            f"{stand.origin}: images meet it where the sharing scheme does not say whose rows they are"
        )


def _key(images: Mapping[str, Tensor]) -> Any:
    return tuple((task, tuple(pixels.shape)) for task, pixels in images.items())
