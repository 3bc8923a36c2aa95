"""Trainings that stop in the middle."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from mtframe.training import Trainer


def train_until(trainer: Trainer, last: int) -> None:
    """Trains, and breaks off after a step without saving it."""
    step = trainer.train_step

    def stopping(group: Any) -> None:
        step(group)
        if trainer.step == last:
            raise KeyboardInterrupt

    trainer.train_step = stopping  # type: ignore[method-assign]
    with suppress(KeyboardInterrupt):
        trainer.fit()
