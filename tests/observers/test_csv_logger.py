"""`metrics.csv`: whole rows, also after a kill; curves; and no training lost over it."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from mtframe.assembly import Assembly
from mtframe.recipe import Recipe
from mtframe.run import RunFolder
from mtframe.training import Trainer
from mtframe_observers.csv_logger import append_row, truncate
from toy import toy_recipe


def test_a_row_every_log_every_steps_and_the_curves_of_the_losses(tmp_path: Path) -> None:
    recipe = Recipe.from_plain(toy_recipe(steps=5, log_every=2))
    assembly = Assembly(recipe)
    run = RunFolder(tmp_path / "run").create(recipe, assembly.infos)
    Trainer(assembly, run).fit()
    with (run.path / "metrics.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    losses = ["one/cross_entropy", "two/cross_entropy"]
    seen = ["epochs_one", "epochs_two"]
    assert list(rows[0]) == ["step", "epoch", "lr", "images_per_second", *seen, *losses]
    # The last step too, though it is not at an interval's end; 30 images in batches of 4 are 8 steps.
    assert [(row["step"], row["epoch"]) for row in rows] == [("2", "0.250"), ("4", "0.500"), ("5", "0.625")]
    assert (run.path / "plots" / "losses.png").stat().st_size > 1000


def test_a_recipe_without_it_writes_none(tmp_path: Path) -> None:
    recipe = Recipe.from_plain({**toy_recipe(steps=2), "hooks": []})
    assembly = Assembly(recipe)
    run = RunFolder(tmp_path / "run").create(recipe, assembly.infos)
    Trainer(assembly, run).fit()
    assert not {"metrics.csv", "plots"} & {file.name for file in run.path.iterdir()}


def test_rows_are_written_whole_and_told_by_name_where_they_cannot_be(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    path.touch()
    for step in (1, 2, 10, 20):
        append_row(path, {"step": step, "one/loss": 0.5})
    assert path.read_text(encoding="utf-8").splitlines() == ["step,one/loss", "1,0.5", "2,0.5", "10,0.5", "20,0.5"]
    with pytest.raises(OSError, match="No space left on device: '/dev/full'"):
        append_row(Path("/dev/full"), {"step": 1})


@pytest.mark.parametrize(("text", "kept"), [
    ("", ""),
    ("ste", ""),
    ("step,lr\n", "step,lr\n"),
    ("step,lr\n10,0.1\n20,0.1\n30,0.1\n", "step,lr\n10,0.1\n20,0.1\n"),
    # Cut off in the middle of step 30's row.
    ("step,lr\n10,0.1\n20,0.1\n3", "step,lr\n10,0.1\n20,0.1\n"),
])  # fmt: skip
def test_rows_after_a_step_and_what_was_cut_off_are_dropped(tmp_path: Path, text: str, kept: str) -> None:
    path = tmp_path / "metrics.csv"
    path.write_text(text, encoding="utf-8")
    truncate(path, 20)
    assert path.read_text(encoding="utf-8") == kept
