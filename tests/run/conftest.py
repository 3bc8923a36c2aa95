"""A small run, trained once and copied."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from mtframe.assembly import Assembly
from mtframe.recipe import Recipe
from mtframe.training import Trainer
from stopped import train_until
from toy import toy_recipe


@pytest.fixture(scope="session")
def stopped_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Trained for 8 of 12 steps, with a save every 4 steps and evaluations."""
    path = tmp_path_factory.mktemp("stopped") / "run"
    trainer = Trainer(Assembly(Recipe.from_plain(toy_recipe(steps=12, save_every_steps=4, evaluate_every=0.8))), path)
    train_until(trainer, 9)
    return path


@pytest.fixture
def run(stopped_run: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    shutil.copytree(stopped_run, tmp_path / "run")
    return tmp_path / "run"
