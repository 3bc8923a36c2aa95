"""What tasks have in common: how their images run through one backbone."""

# Shapes: B images of all tasks in one pass, C channels, H height, W width.

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from mtframe.errors import RecipeError

from ._batchnorm import BatchNormPolicy, apply_batchnorm_policy
from ._rows import rows_of


class Network(nn.Module):
    """Every task runs through the whole backbone; tasks of one image size in one concatenated pass.

    One pass is faster, and it keeps BatchNorm honest: in training each image is normalised with the statistics
    of the mixture, and so it is in evaluation. Tasks of different sizes need a pass each, which would normalise
    each task by itself in training and by the mixture in evaluation; `batchnorm` says what is done about that.
    It has no effect on a backbone without BatchNorm, or where all tasks have one size.

    Args:
        backbone: A backbone (see `mtframe.kinds.Backbone`).
        groups: Task names by pass: the tasks of a group always have images of one size.
        batchnorm: `per-task`: the weights are shared, each pass keeps running statistics of its own, so that
            training and evaluation agree. `shared`: one set of running statistics, an average over the passes,
            with which evaluation differs from training. `frozen`: always the statistics that the backbone came
            with; only sensible for a pretrained one.
    """

    def __init__(
        self, backbone: nn.Module, groups: Sequence[Sequence[str]], *, batchnorm: BatchNormPolicy = "per-task"
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.groups = tuple(tuple(group) for group in groups)
        self.features = backbone.features
        self._statistics = apply_batchnorm_policy(backbone, len(self.groups), batchnorm)

    def forward(
        self, images: Mapping[str, Tensor], lenders: Mapping[str, str] | None = None
    ) -> dict[str, list[Tensor]]:
        """Normalised images (B, 3, H, W) by task to one (B, C, H / stride, W / stride) map per feature, by task.

        Tasks in `lenders` get the maps of the task whose images they look at.
        """
        maps: dict[str, list[Tensor]] = {}
        for index, group in enumerate(self.groups):
            present = [task for task in group if task in images]
            if not present:
                continue
            counts = {task: len(images[task]) for task in present}
            joined = images[present[0]] if len(present) == 1 else torch.cat([images[task] for task in present])
            with self._statistics.of(index), rows_of(counts):
                parts = [features.split(list(counts.values())) for features in self.backbone(joined)]
            for position, task in enumerate(present):
                maps[task] = [part[position] for part in parts]
        return maps | {task: maps[lender] for task, lender in (lenders or {}).items()}

    def shared_parameters(self) -> Iterator[nn.Parameter]:
        """The parameters of the backbone."""
        return self.backbone.parameters()


def by_task(modules: Mapping[str, nn.Module]) -> nn.ModuleDict:
    """Modules by the names of tasks. Raises RecipeError for a name that torch reserves."""
    try:
        return nn.ModuleDict(dict(modules))
    except KeyError as error:
        raise RecipeError(f"tasks: choose another name for the task; torch reserves it ({error.args[0]})") from None
