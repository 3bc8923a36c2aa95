"""Where a backbone's stages end: the module whose output is all that a stage hands on to the next."""

# Shapes: B images, C channels, H height, W width, N tokens.

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from mtframe.errors import RecipeError
from mtframe.kinds import BuiltForSize

from ._tape import inside

# Not square, so that the channels' axis shows; then what a backbone says it was built for, and the usual size.
_OBLONG, _USUAL = (64, 96), 224


@dataclass(frozen=True, slots=True)
class StageEnd:
    """What a stage hands on.

    Attributes:
        module: Name in the backbone of the module that gives it.
        call: At which of the module's calls in a pass, from 0.
        axis: Of the channels: 1 of (B, C, H, W), -1 of (B, H, W, C) or (B, N, C).
        channels: How many there are.
    """

    module: str
    call: int
    axis: int
    channels: int


def backbones_in(module: nn.Module) -> Iterator[tuple[str, Any]]:
    """The backbones that a module holds, each with its name there: a sharing scheme may have several copies."""
    # As the contract has it: other networks have modules of that name.
    return ((name, part) for name, part in module.named_modules() if isinstance(getattr(part, "stages", None), tuple))


@torch.enable_grad()
def stage_ends(backbone: Any) -> tuple[StageEnd, ...]:
    """Finds out what each stage ends with, from a pass of a copy of the backbone, on the meta device where that works.

    A stage ends with the last of its modules that is called before those of the next. That is a place to cut only if
    whatever comes after it depends on the images by way of its output alone, which is checked by differentiating.
    The last stage is left out where it gives several maps, as a feature pyramid does.

    Args:
        backbone: A backbone (see `mtframe.kinds.Backbone`).

    Returns:
        One for each stage, input first.

    Raises:
        RecipeError: There are no such places.
    """
    probe = _Probe(backbone)
    probe.run()
    count = len(backbone.stages)
    ends = [probe.end_of(stage) for stage in range(count)]
    for stage, end in enumerate(ends[:-1]):
        if end is None:
            raise RecipeError(f"stage {stage + 1} of the backbone's {count} does not end in one feature map; {_ELSE}")
    found = tuple(end for end in ends if end is not None)
    if not found or (count == 1 and len(backbone.features) > 1):
        raise RecipeError(f"the backbone has one stage only, and it gives several maps; {_ELSE}")
    if past := probe.passed(found):
        raise RecipeError(
            f"the backbone cannot be cut behind {found[past - 1].module!r}, where its stage {past} of {count} ends: "
            f"what comes later depends on more than this module's output; {_ELSE}"
        )
    return found


_ELSE = "choose another backbone, or what does not cut between stages (sharing=network, mtan or mmoe)"


class _Probe:
    """Passes through a copy of a backbone, and what its modules give in them."""

    def __init__(self, backbone: Any) -> None:
        self.backbone = backbone
        self.stages: dict[str, int] = {
            name: number for number, names in enumerate(backbone.stages) for name, _ in inside(backbone, names)
        }
        self.calls: list[tuple[str, Any]] = []
        self.images = torch.empty(0)

    def run(self) -> None:
        """The first size and device on which it runs, with a record of the outermost calls of stages' modules."""
        size = self.backbone.size if isinstance(self.backbone, BuiltForSize) else _USUAL
        failure: Exception | None = None
        for device in ("meta", "cpu"):
            candidate = deepcopy(self.backbone).to(device).eval().requires_grad_(False)
            for sides in (_OBLONG, (size, size), (_USUAL, _USUAL)):
                images = torch.zeros(2, 3, *sides, device=device, requires_grad=True)
                try:
                    with self._recording(candidate):
                        candidate(images)
                except Exception as error:  # whatever a stranger's network raises at a size that it does not take
                    failure = error
                    continue
                self.backbone, self.images = candidate, images
                return
        raise RecipeError(f"the backbone does not run on images of {size} px, to find where its stages end: {failure}")

    def end_of(self, stage: int) -> StageEnd | None:
        """The stage's last call before a later one's first; None if there is none, or it gives no single tensor."""
        later = [n for n, (name, _) in enumerate(self.calls) if self.stages[name] > stage]
        before = self.calls[: min(later, default=len(self.calls))]
        number = max((n for n, (name, _) in enumerate(before) if self.stages[name] == stage), default=None)
        if number is None:
            return None
        name, output = before[number]
        if not isinstance(output, Tensor) or output.dim() < 3 or len(output) != 2:
            return None
        axis = self._channel_axis(output)
        return StageEnd(name, [n for n, _ in before[:number]].count(name), axis, output.shape[axis])

    def passed(self, ends: tuple[StageEnd, ...]) -> int:
        """Number of the first stage, from 1, that more than its end connects with the next one's; 0 if none."""
        handed: list[Tensor] = []
        given: list[Tensor] = []

        def cut(end: StageEnd, count: list[int], module: nn.Module, inputs: Any, output: Any) -> Any:
            count.append(0)
            if len(count) != end.call + 1:
                return None
            given.append(output)
            handed.append(output.detach().requires_grad_())
            # What follows may work in place, which a leaf refuses.
            return handed[-1].clone()

        hooks = [
            self.backbone.get_submodule(end.module).register_forward_hook(partial(cut, end, [])) for end in ends
        ]  # fmt: skip
        self.backbone(self.images)
        for hook in hooks:
            hook.remove()
        for number in range(1, len(ends)):
            sources = [self.images, *handed[:number]]
            *earlier, last = torch.autograd.grad(given[number].sum(), sources, allow_unused=True, retain_graph=True)
            if last is None or any(gradient is not None for gradient in earlier):
                return number
        return 0

    def _channel_axis(self, output: Tensor) -> int:
        height, width = self.images.shape[2:]
        if output.dim() == 3:
            return -1
        last = output.shape[1] * width == output.shape[2] * height
        return -1 if last and output.shape[2] * width != output.shape[3] * height else 1

    @contextmanager
    def _recording(self, backbone: nn.Module) -> Iterator[None]:
        self.calls, depth = [], [0]

        def enter(module: nn.Module, inputs: Any) -> None:
            depth[0] += 1

        def leave(name: str, module: nn.Module, inputs: Any, output: Any) -> None:
            depth[0] -= 1
            if depth[0] == 0:
                self.calls.append((name, output))

        hooks = []
        for name in self.stages:
            module = backbone.get_submodule(name)
            hooks += [module.register_forward_pre_hook(enter), module.register_forward_hook(partial(leave, name))]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()
