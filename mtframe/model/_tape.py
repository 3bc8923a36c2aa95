"""What modules of a backbone gave, written down in one pass and read in another.

A backbone is then cut without knowing its code: a pass ends where it should by an exception, and the next one reads
what the first has computed and goes on from there.
"""

# Shapes: B images in one pass.

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map_only


class Stopped(Exception):
    """The pass is done."""


class Tape:
    """What the outermost calls of some modules gave, in their order."""

    def __init__(self) -> None:
        self.outputs: list[tuple[str, Any]] = []
        self.inside = False
        self.total = self.position = 0
        self.rows, self.copy = slice(None), False

    def begin(self, total: int) -> None:
        """Starts anew, for `total` images."""
        self.outputs, self.total, self.inside = [], total, False

    def write(self, module: str, inputs: Any, output: Any) -> None:
        """Adds a module's output if it was made from images, and not a table that serves all of them."""
        if any(isinstance(leaf, Tensor) and self._per_image(leaf) for leaf in tree_leaves(inputs)):
            self.outputs.append((module, output))

    def rewind(self, rows: slice, copy: bool) -> None:
        """Goes back to the first output, to read these rows; copied where several tasks read the same."""
        self.position, self.rows, self.copy = 0, rows, copy

    def holds(self, module: str) -> bool:
        """Whether the next output is of this module."""
        return self.position < len(self.outputs) and self.outputs[self.position][0] == module

    def read(self) -> Any:
        """The rows of the next output."""
        self.position += 1
        return tree_map_only(Tensor, self._narrowed, self.outputs[self.position - 1][1])

    def clear(self) -> None:
        """Lets go of everything."""
        self.outputs = []

    def _per_image(self, tensor: Tensor) -> bool:
        return tensor.dim() > 0 and len(tensor) > 0 and len(tensor) % self.total == 0

    def _narrowed(self, tensor: Tensor) -> Tensor:
        if not self._per_image(tensor):
            return tensor
        # An image may have several rows, one after the other: windows.
        each = len(tensor) // self.total
        part = tensor[self.rows.start * each : self.rows.stop * each]
        # In-place activations would change what the next task reads.
        return part.clone() if self.copy else part


def inside(module: nn.Module, names: Sequence[str]) -> list[tuple[str, nn.Module]]:
    """The modules of these names and all within them, with their names."""
    ends = tuple(f"{name}." for name in names)
    return [(name, child) for name, child in module.named_modules() if f"{name}.".startswith(ends)]


def become(module: nn.Module, names: Sequence[str], role: Any, tape: Tape) -> None:
    """Gives the modules at or under these names another forward pass; type, hooks and attributes stay theirs."""
    for name, child in inside(module, names):
        child._tape, child._name = tape, name  # type: ignore[assignment]
        kind: Any = type(child)
        child.__class__ = role(kind)


def subclass(base: type[nn.Module], forward: Any) -> Any:
    """A subclass with another forward pass that goes by the same name."""
    return type(base.__name__, (base,), {"__module__": base.__module__, "forward": forward})
