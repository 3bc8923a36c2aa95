"""What a trainer keeps of the losses between two reports, and log.txt."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from pydantic import ConfigDict, with_config
from torch import Tensor
from typing_extensions import TypedDict

from mtframe.errors import Printable
from mtframe.files import appending

LOG = logging.getLogger("mtframe")


@with_config(ConfigDict(arbitrary_types_allowed=True, extra="forbid", strict=True))
class SavedMeter(TypedDict):
    """Sums of loss terms, and of how many steps they are, by `task/term`."""

    sums: dict[str, Tensor]
    counts: dict[str, int]


class LossMeter:
    """Means of every task's loss terms over a logging interval, summed on the device without waiting for it."""

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.counts: dict[str, int] = {}

    def add(self, terms: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Adds the terms of one pass, in which some tasks may take no part."""
        for task, named in terms.items():
            for name, value in named.items():
                key, value = f"{task}/{name}", _wide(value)
                self.sums[key] = self.sums[key] + value if key in self.sums else value
                self.counts[key] = self.counts.get(key, 0) + 1

    def take(self) -> dict[str, float]:
        """The means since the last call, by `task/term`."""
        means = {key: float(value) / self.counts[key] for key, value in self.sums.items()}
        self.sums, self.counts = {}, {}
        return means

    def state_dict(self) -> SavedMeter:
        """What a checkpoint in the middle of an interval keeps."""
        return {"sums": {key: value.cpu() for key, value in self.sums.items()}, "counts": self.counts}

    def load_state_dict(self, state: SavedMeter, device: torch.device) -> None:
        """Goes on in the middle of an interval."""
        self.sums = {key: value.to(device) for key, value in state["sums"].items()}
        self.counts = dict(state["counts"])


def _wide(value: Tensor) -> Tensor:
    """In float64, so that nothing is lost in long sums; Apple's GPUs have none."""
    return value if value.device.type == "mps" else value.double()


class _LogFile(logging.FileHandler):
    def _open(self) -> Any:
        return appending(Path(self.baseFilename))

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        """Nothing: a line that cannot be written is no reason for a traceback; a full disk is reported once."""

    def close(self) -> None:
        """Closes the file, even if what is left of it cannot be written."""
        with suppress(OSError):
            super().close()


@contextmanager
def log_to(path: Path) -> Iterator[None]:
    """Within it, the framework's log goes to a run's log.txt too."""
    handler = _LogFile(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%Y-%m-%d %H:%M:%S"))
    handler.addFilter(Printable())
    LOG.addHandler(handler)
    LOG.setLevel(logging.INFO)
    try:
        yield
    finally:
        LOG.removeHandler(handler)
        handler.close()
