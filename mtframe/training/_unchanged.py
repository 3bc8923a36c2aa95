"""Whether what was learned is whole, and gives the same, in a model with other tasks."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch
from torch import Tensor, nn

from mtframe.errors import RecipeError
from mtframe.model import MultiTaskModel

from ._loaded import Loaded
from ._own import is_within


def check_whole(loaded: Loaded, way: str, hint: str = "", dropping: Collection[str] | None = None) -> None:
    """Raises RecipeError if an old tensor has no place in the new model, or another shape there.

    Args:
        loaded: What the new model has of the old one.
        way: What cannot be.
        hint: What can.
        dropping: The old model's parts that go, if some do; then nothing may be new either.
    """
    lost = [name for name in loaded.unused if not is_within(name, dropping or ())]
    unfit = [f"{name} is {theirs} in the run, and would be {ours}" for name, (ours, theirs) in loaded.unfit.items()]
    if dropping is not None:
        unfit += [f"{name} would be new" for name in loaded.missing]
    if problems := [*unfit, *(f"{name} would have no place" for name in lost)]:
        raise RecipeError(f"{way}: " + "; ".join(problems[:3]) + hint)


@torch.inference_mode()
def check_same(
    before: MultiTaskModel, after: MultiTaskModel, sizes: Mapping[str, int], way: str, hint: str = ""
) -> None:
    """Raises RecipeError if two models do not give exactly the same for some picture of noise."""
    generator = torch.Generator().manual_seed(0)
    for task, size in sizes.items():
        noise = torch.randint(256, (1, 3, size, size), generator=generator, dtype=torch.uint8)
        old, new = (_outputs(model, task, noise) for model in (before, after))
        if any(not torch.equal(old[name], new[name]) for name in old):
            raise RecipeError(f"{way}: with this sharing scheme and backbone it changes what {task} gives{hint}")


def _outputs(model: nn.Module, task: str, images: Tensor) -> dict[str, Tensor]:
    return model.eval()({task: images})[task]
