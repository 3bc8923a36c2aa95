"""Thresholds of tasks that are not trained: they stay true as long as what answers for these tasks stays as it is."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Mapping

import torch
from torch import Tensor

from mtframe.kinds import NamesShared
from mtframe.metrics import Thresholds
from mtframe.model import MultiTaskModel

from ._own import is_within, own_parts


class UntrainedThresholds:
    """Those that a run began with, of tasks that it does not train.

    A threshold belongs to weights. It is given on only while every tensor that is not a trained task's own is the same.

    Args:
        thresholds: By task, those that came with the weights.
        model: With these weights.
        trained: The tasks that are trained.
    """

    def __init__(self, thresholds: Mapping[str, Thresholds], model: MultiTaskModel, trained: Collection[str]) -> None:
        self._thresholds = {
            task: its for task, its in thresholds.items() if task in model.tasks and task not in trained
        }
        self._trained = trained
        self._digest = self._digest_of(model) if self._thresholds else ""

    def of(self, model: MultiTaskModel) -> dict[str, Thresholds]:
        """Those that are still true of this model."""
        return self._thresholds if self._thresholds and self._digest_of(model) == self._digest else {}

    def _digest_of(self, model: MultiTaskModel) -> str:
        told = hashlib.sha256()
        for name, tensor in self._kept(model):
            told.update(name.encode() + b"\0")
            told.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
        return told.hexdigest()

    def _kept(self, model: MultiTaskModel) -> Iterator[tuple[str, Tensor]]:
        own = {part for part, task in own_parts(model).items() if task in self._trained}
        # What is said to be shared though one task's, as a column of cross-stitch, other tasks may run through.
        shared = {
            id(one) for one in (model.sharing.shared_parameters() if isinstance(model.sharing, NamesShared) else ())
        }
        for name, tensor in model.state_dict(keep_vars=True).items():
            if isinstance(tensor, Tensor) and (id(tensor) in shared or not is_within(name, own)):
                yield name, tensor
