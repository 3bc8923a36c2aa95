"""What of some weights a model started from, for people."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mtframe.metrics import Thresholds

Shape = tuple[int, ...]

# What the backbone wants of images belongs to its weights.
NORMALISATION = ("mean", "std", "_extra_state")

# Lines about tensors that did not fit which a terminal shows; the log has all.
_SHOWN = 10


@dataclass(frozen=True)
class Loaded:
    """What of some weights a model started from.

    Attributes:
        file: Where the weights are from.
        sources: By name of a tensor of the model that was loaded, its name there.
        unfit: By name, the shapes of tensors that differ: the model's, the weights'.
        missing: Tensors of the model of which the weights have none.
        unused: Tensors of the weights that the model has no place for.
        like: By task whose own part of the sharing scheme started as a copy, the task of the run that it is one of.
        thresholds: By task, what was chosen with the weights, if it looks at pictures as it did there.
        rows: By tensor with a row for each class, of a task whose classes are not those of the weights: how many rows
            are those of classes of the same name, and how many there are.
        unnamed: Tensors with a row for each class that were taken as they are, as nobody knows whose rows they are.
    """

    file: Path
    sources: Mapping[str, str] = field(repr=False)
    unfit: Mapping[str, tuple[Shape, Shape]]
    missing: Sequence[str] = field(repr=False)
    unused: Sequence[str] = field(repr=False)
    like: Mapping[str, str]
    thresholds: Mapping[str, Thresholds] = field(default_factory=dict, repr=False)
    rows: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    unnamed: Sequence[str] = ()

    def lines(self, most: int | None = None) -> list[str]:
        """What was loaded and what was not, for people; of what did not fit, the first `most` tensors by name."""
        loaded = Counter(map(part_of, self.sources))
        whole = loaded + Counter(map(part_of, [*self.unfit, *self.missing]))
        lines = [f"started from {self.file}: {len(self.sources)} of {whole.total()} tensors loaded"]
        lines += [f"  {part}: {loaded[part]} of {count}" for part, count in whole.items()]
        lines += [f"  sharing of {task}: copied from that of {like}" for task, like in self.like.items()]
        lines += [f"  {name}: {_rows(*numbers)}" for name, numbers in self.rows.items()]
        lines += [
            f"  {name}: rows of classes in the order of the weights, which are in no run that says whose they are"
            for name in self.unnamed
        ]
        unused = Counter(map(part_of, self.unused))
        lines += [f"  not used: {part} ({count} of its tensors)" for part, count in unused.items()]
        unfit = [f"  did not fit: {name}: the model has {ours}, the weights {theirs}"
                 for name, (ours, theirs) in self.unfit.items()]  # fmt: skip
        left = len(unfit) - most if most is not None else 0
        return (
            lines + unfit[:most] + ([f"  and {left} more that did not fit; the run's log.txt names all"] * (left > 0))
        )

    def shown(self) -> list[str]:
        """The lines for a terminal."""
        return self.lines(_SHOWN)


def _rows(taken: int, whole: int) -> str:
    if not taken:
        return f"the weights have other classes; all {whole} rows begin anew"
    return f"other classes: {taken} of {whole} rows are those of classes of the same name, {whole - taken} begin anew"


def part_of(name: str) -> str:
    """The part of the model that a tensor is reported with."""
    whole, _, rest = name.partition(".")
    if whole in NORMALISATION:
        return "normalisation"
    return f"{whole}.{rest.partition('.')[0]}" if whole in ("heads", "losses") else whole
