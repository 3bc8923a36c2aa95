from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch

from mtframe.assembly import Assembly
from mtframe.data import DataInfo, Inputs, MixedBatches, Sample, Source, SplitBatches, Viewer
from mtframe.errors import BadImageError, DataError, RecipeError, StarvedError
from mtframe.inference import preview
from mtframe.recipe import Recipe
from mtframe.schedule import Epochs, Joint, Proportional, RoundRobin, Temperature
from mtframe_classification.targets import Label
from toy import ToyData, ToyTransform, toy_recipe

LABEL = Label(DataInfo("label", ("dark", "light")))


def source(task: str, data: ToyData, batch_size: int, transform: type[ToyTransform] = ToyTransform) -> Source:
    return Source(data, transform(16, True), batch_size, {task: Viewer(LABEL)})


def sources(bad: int | None = None) -> dict[str, Source]:
    short, long = ToyData("train", count=7, bad=bad), ToyData("train", count=20)
    return {"short": source("short", short, 3), "long": source("long", long, 4)}


class Killed(ToyData):
    """Its process is gone at the third image, as if by the out-of-memory killer."""

    def __getitem__(self, index: int) -> Sample:
        if index == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__getitem__(index)


def test_a_worker_that_is_gone_is_told_without_a_traceback() -> None:
    batches = SplitBatches("one", Killed("val", count=9), ToyTransform(16, False), 3)
    with pytest.raises(
        StarvedError, match=r"a process that reads images is gone \(DataLoader worker .*(killed|exited)"
    ):
        list(batches.batches(workers=2))


def seen(batches: MixedBatches, task: str, steps: int) -> list[int]:
    source = batches.sources[task]
    return [batches._index(source, task, draw) for draw in range(steps * source.batch_size)]


def test_an_epoch_shows_every_image_of_the_longest_task_once_and_shorter_tasks_go_round() -> None:
    batches = MixedBatches(sources(), seed=0)
    assert batches.schedule.steps_per_epoch == 5
    assert sorted(seen(batches, "long", 5)) == list(range(20))
    draws = seen(batches, "short", 5)
    assert sorted(draws[:7]) == sorted(draws[7:14]) == list(range(7))
    assert draws[:7] != draws[7:14]


SCHEDULES: dict[str, Any] = {
    "joint": Joint,
    "round-robin": lambda lengths, every: RoundRobin(lengths),
    "epochs": lambda lengths, every: Epochs(lengths),
    "proportional": lambda lengths, every: Proportional(lengths),
    "temperature": lambda lengths, every: Temperature(lengths, temperature=2.0),
}


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("workers", [0, 2])
def test_batches_from_a_later_step_on_are_those_of_a_loader_that_was_never_stopped(workers: int, schedule: str) -> None:
    batches = MixedBatches(sources(), 3, SCHEDULES[schedule])
    whole = list(batches.batches(0, 6, workers=0))
    rest = list(batches.batches(4, 6, workers=workers))
    assert len(rest) == 2
    for expected, batch in zip(whole[4:], rest, strict=True):
        assert expected.keys() == batch.keys()
        for task in batch:
            assert torch.equal(expected[task].images, batch[task].images)
            assert torch.equal(expected[task].targets[task]["label"], batch[task].targets[task]["label"])


class Fading(ToyTransform):
    """Its images are as bright as training is far."""

    def set_progress(self, fraction: float) -> None:
        self.fraction = fraction

    def __call__(self, samples: Sequence[Sample], rng: np.random.Generator) -> Inputs:
        inputs = super().__call__(samples, rng)
        return Inputs(torch.full_like(inputs.images, round(100 * self.fraction)), inputs.placements)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_transform_is_told_how_far_training_is_whichever_process_asks_for_which_step(workers: int) -> None:
    batches = MixedBatches({"one": source("one", ToyData("train", count=7), 2, Fading)}, seed=0)
    # A sheet of pictures belongs to no training: all are as at its start.
    assert int(batches[3]["one"].images.max()) == 0  # type: ignore[index]
    batches.steps = 5
    shown = [int(batch["one"].images.max()) for batch in batches.batches(1, 5, workers)]
    assert shown == [20, 40, 60, 80]
    assert int(batches[0]["one"].images.max()) == 0  # type: ignore[index]


def test_a_task_that_takes_part_now_and_then_goes_through_its_images_all_the_same() -> None:
    parts = sources()
    parts["short"].every = 2
    batches = MixedBatches(parts, seed=0)
    assert [list(batch) for batch in batches.batches(0, 4, workers=0)] == [["short", "long"], ["long"]] * 2
    # Its second batch is that of the second step of a run in which it is always there.
    now_and_then, always = batches[2], MixedBatches(sources(), seed=0)[1]
    assert isinstance(now_and_then, dict)
    assert isinstance(always, dict)
    assert torch.equal(now_and_then["short"].images, always["short"].images)
    # Two batches of 3 of its 7 images, four of 4 of the 20.
    assert batches.epochs(4) == {"short": 6 / 7, "long": 16 / 20}


def test_seeds_differ() -> None:
    one, two = MixedBatches(sources(), seed=0)[0], MixedBatches(sources(), seed=1)[0]
    assert isinstance(one, dict)
    assert isinstance(two, dict)
    assert not torch.equal(one["long"].images, two["long"].images)


def test_the_global_generator_is_left_alone() -> None:
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    MixedBatches(sources(), seed=0)[0]
    assert torch.equal(torch.rand(3), expected)


def test_an_unreadable_image_is_replaced_by_the_next_one_and_named() -> None:
    batches = MixedBatches(sources(bad=2), seed=0)
    parts = list(batches.batches(0, 5, workers=0))
    skipped = [reason for part in parts for reason in part["short"].skipped]
    # 15 draws from 7 images meet image 2 at least twice.
    assert len(skipped) >= 2
    assert set(skipped) == {"toy/2.jpg: made to be bad"}
    assert all(len(part["short"]) == 3 for part in parts)


def test_a_data_set_of_which_nothing_can_be_read_stops_with_the_files_named() -> None:
    broken = {"one": source("one", ToyData("train", count=1, bad=0), 1)}
    with pytest.raises(DataError, match=r"tasks\.one\.dataset: 20 images in a row cannot be read.*\n  toy/0\.jpg"):
        list(MixedBatches(broken, seed=0).batches(0, 1, workers=1))


def test_an_empty_data_set_is_refused() -> None:
    with pytest.raises(DataError, match=r"tasks\.one\.dataset: the training split has no images"):
        MixedBatches({"one": source("one", ToyData("train", count=0), 1)}, seed=0)


@pytest.mark.parametrize("workers", [0, 2])
def test_evaluation_sees_each_image_once_in_order_without_the_unreadable(workers: int) -> None:
    split = SplitBatches("one", ToyData("val", count=10, bad=4), ToyTransform(16, False), 4)
    batches = list(split.batches(workers))
    assert [sample.index for batch in batches for sample in batch.samples["one"]] == [0, 1, 2, 3, 5, 6, 7, 8, 9]
    assert [batch.skipped for batch in batches] == [[], ["toy/4.jpg: made to be bad"], []]
    assert all(sample.image.numel() == 0 for batch in batches for sample in batch.samples["one"])


def test_a_batch_of_which_nothing_can_be_read_has_its_reasons() -> None:
    split = SplitBatches("one", ToyData("val", count=1, bad=0), ToyTransform(16, False), 4)
    (batch,) = split.batches(0)
    assert (len(batch), batch.samples, batch.skipped) == (0, {"one": []}, ["toy/0.jpg: made to be bad"])


class Picky(ToyTransform):
    """Makes nothing of what is dark."""

    def __call__(self, samples: Sequence[Sample], rng: np.random.Generator) -> Inputs:
        for sample in samples:
            if sample.target["label"] == 0:
                raise BadImageError(sample.id, "too dark")
        return super().__call__(samples, rng)


def test_images_that_a_transform_makes_nothing_of_are_replaced_or_left_out_and_named() -> None:
    data = ToyData("train", count=8)
    dark = {data[index].id for index in range(8) if data[index].target["label"] == 0}
    assert 0 < len(dark) < 8
    batch = MixedBatches({"one": source("one", data, 8, Picky)}, seed=0)[0]["one"]
    assert len(batch) == 8
    assert batch.targets["one"]["label"].tolist() == [1] * 8
    assert {reason.partition(":")[0] for reason in batch.skipped} == dark
    (scored,) = SplitBatches("one", data, Picky(16, False), 8).batches(workers=0)
    assert len(scored) == 8 - len(dark)
    assert len(scored.skipped) == len(dark)


def test_what_training_sees_now_and_then_can_be_looked_at() -> None:
    plain = toy_recipe({"one": {}, "two": {"every": 3}})
    sheet = preview(Assembly(Recipe.from_plain(plain)), "two", images=10)
    assert sheet.size[0] > 0


def test_of_a_task_that_is_not_trained_there_is_nothing_to_look_at() -> None:
    plain = toy_recipe()
    plain["train"]["tasks"] = ["one"]
    recipe = Recipe.from_plain(plain)
    assembly = Assembly(recipe, {task: DataInfo("label", ("dark", "light")) for task in recipe.tasks})
    with pytest.raises(RecipeError, match=r"'two' is not trained, so training sees nothing of it; trained are one"):
        preview(assembly, "two")
