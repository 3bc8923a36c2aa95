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

from ._passes import PerPass
from ._roles import Role, take_role


class Stopped(Exception):
    """The pass is done."""


class Tape:
    """What the outermost calls of some modules gave, in their order.

    Args:
        total: Number of images that the pass which writes it is of.
    """

    def __init__(self, total: int) -> None:
        self.total = total
        self.outputs: list[tuple[str, Any]] = []
        # Whether a call is being recorded: those within it are not.
        self.inside = False
        self.position = 0
        self.rows, self.copy = slice(0, total), False

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


def become(module: nn.Module, names: Sequence[str], role: Role, tape: PerPass[Any]) -> None:
    """Gives the modules at or under these names another forward pass; type, hooks and attributes stay theirs.

    Args:
        module: Changed in place.
        names: Of modules in it.
        role: The forward pass.
        tape: Where they find the tape of their pass, as `_tape`; outside of any they compute as they did.
    """
    for name, child in inside(module, names):
        vars(child).update(_tape=tape, _name=name)
        take_role(child, role)
