"""What ends a training that would come to nothing: images that cannot be read, borrowed images without a label."""

from __future__ import annotations

import logging

import pytest
import torch

from mtframe.data import Batch
from mtframe.errors import TrainingError
from mtframe.training._borrowed import BorrowedLabels
from mtframe.training._unreadable import UnreadableImages


def batch(*known: str, skipped: tuple[str, ...] = ()) -> Batch:
    images = torch.zeros(1, 3, 2, 2, dtype=torch.uint8)
    return Batch(images, {task: {} for task in known}, skipped=list(skipped))


def test_each_unreadable_image_counts_and_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    guard = UnreadableImages(2)
    with caplog.at_level(logging.WARNING, "mtframe"):
        for _ in range(3):
            guard.step_started([{"a": batch(skipped=("1.jpg: cut off",))}, {"b": batch(skipped=("2.jpg: empty",))}])
    assert [record.getMessage() for record in caplog.records] == [
        "task a: skipped an unreadable image: 1.jpg: cut off",
        "task b: skipped an unreadable image: 2.jpg: empty",
    ]
    with pytest.raises(
        TrainingError, match=r"^3 images .* train\.max_unreadable=2:\n  1\.jpg: .*\n  2\.jpg: .*\n  3\.jpg"
    ):
        guard.step_started([{"a": batch(skipped=("3.jpg: no image",))}])


def test_of_many_unreadable_images_ten_are_named() -> None:
    with pytest.raises(TrainingError) as caught:
        UnreadableImages(5).step_started([{"a": batch(skipped=tuple(f"{n}.jpg" for n in range(40)))}])
    assert str(caught.value).startswith("40 images cannot be read")
    assert str(caught.value).count("\n  ") == 10


def test_a_borrower_that_sees_no_label_until_it_is_due_is_named() -> None:
    guard = BorrowedLabels({"mood": "faces", "age": "faces"}, due=5)
    for step in range(5):
        # One in the second of two accumulated batches will do.
        guard.step_started(step, [{"faces": batch("faces")}, {"faces": batch("faces", "age")}])
    with pytest.raises(TrainingError, match=r"^tasks\.mood\.dataset has no label for any image of task 'faces'"):
        guard.step_started(5, [{"faces": batch("faces")}])


def test_a_label_in_time_is_enough_for_ever() -> None:
    guard = BorrowedLabels({"mood": "faces"}, due=5)
    guard.step_started(5, [{"faces": batch("mood")}])
    for step in range(6, 50):
        guard.step_started(step, [{"faces": batch("faces")}])
