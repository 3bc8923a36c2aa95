"""A backbone that runs a stage at a time, so that what each hands on can be changed on the way."""

# Shapes: B images, C channels, H height, W width.

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from ._passes import PerPass
from ._stages import StageEnd
from ._tape import Stopped, Tape, become


class Stagewise(nn.Module):
    """Runs a backbone up to the end of one stage after the other, in passes that `begin` starts.

    Args:
        backbone: A backbone (see `mtframe.kinds.Backbone`); its modules are changed in place.
        ends: Where its stages end, as `stage_ends` finds it.
    """

    def __init__(self, backbone: Any, ends: Sequence[StageEnd]) -> None:
        super().__init__()
        self.backbone = backbone
        self._ends = tuple(ends)
        self._tape = PerPass[_StageTape]()
        become(backbone, sum(backbone.stages, ()), _taped, self._tape)

    def begin(self, images: Tensor) -> StagewisePass:
        """A pass of normalised images (B, 3, H, W), of which nothing has run."""
        return StagewisePass(self.backbone, self._ends, self._tape, images)


class StagewisePass:
    """One pass through a `Stagewise`: `advance` for each stage, then `finish`.

    Each call runs the backbone from the input. Modules that a call before has run are not run again, but give what
    they gave; the end of a stage gives what `advance` was handed. What a backbone computes between its modules is
    computed at each call.
    """

    def __init__(
        self, backbone: nn.Module, ends: Sequence[StageEnd], current: PerPass[_StageTape], images: Tensor
    ) -> None:
        self._backbone, self._ends, self._images = backbone, ends, images
        self._current, self._tape = current, _StageTape(len(images))

    def advance(self, stage: int, handed: Tensor | None = None) -> Tensor:
        """Runs one stage, and gives what it hands on.

        Args:
            stage: Its number, from 0; those before it have run.
            handed: What it gets in place of what the stage before has handed on.
        """
        self._replace(handed)
        tape = self._tape
        tape.stop_at(self._ends[stage])
        # Copied: what works in place would change what the next call reads.
        tape.rewind(slice(0, tape.total), copy=True)
        try:
            with self._current.use(tape):
                self._backbone(self._images)
        except Stopped:
            output: Tensor = tape.outputs[-1][1]
            return output
        raise AssertionError(f"{self._ends[stage].module} was not called")  # pragma: no cover

    def finish(self, handed: Tensor, rows: slice) -> list[Tensor]:
        """Runs what is left, and gives the feature maps, for some of the images.

        Args:
            handed: As in `advance`, of all images.
            rows: Which of the images.
        """
        self._replace(handed)
        self._tape.stop_at(None)
        self._tape.rewind(rows, copy=False)
        with self._current.use(self._tape):
            return list(self._backbone(self._images[rows]))

    def _replace(self, handed: Tensor | None) -> None:
        if handed is not None:
            name, _ = self._tape.outputs[-1]
            self._tape.outputs[-1] = name, handed


class _StageTape(Tape):
    """A tape that ends with a stage."""

    def __init__(self, total: int) -> None:
        super().__init__(total)
        self.calls: Counter[str] = Counter()
        self.end: StageEnd | None = None

    def stop_at(self, end: StageEnd | None) -> None:
        """Ends the next pass there; None: it runs to its end."""
        self.calls.clear()
        self.inside, self.end = False, end

    def ends_with(self, module: str) -> bool:
        """Whether this call of a module ends the pass. Counts its calls."""
        self.calls[module] += 1
        return self.end is not None and (module, self.calls[module] - 1) == (self.end.module, self.end.call)


class _Taped(nn.Module):
    """A type for annotations: a module of a backbone that runs a stage at a time."""

    _tape: PerPass[_StageTape]
    _name: str


def _taped(base: type[nn.Module]) -> Mapping[str, object]:
    """Gives what it gave before, or what it computes, and writes that down."""

    def forward(module: _Taped, *args: Any, **kwargs: Any) -> Any:
        tape = module._tape.get()
        if tape is None or tape.inside:
            return base.forward(module, *args, **kwargs)
        last = tape.ends_with(module._name)
        if tape.holds(module._name):
            return tape.read()
        tape.inside = True
        output = base.forward(module, *args, **kwargs)
        tape.inside = False
        tape.write(module._name, (args, kwargs), output)
        tape.position = len(tape.outputs)
        if last:
            raise Stopped
        return output

    return {"forward": forward}
