"""The kind `mask`: it follows its image, is made one of several, and comes back to the original."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image, ImageColor
from torch import Tensor

from mtframe.data import DataInfo, Placement, Sample
from mtframe.errors import DataError
from mtframe.kinds import ChecksForm, RatesPredictions, WritesFiles
from mtframe.marks import Mask
from mtframe.palette import colour_of
from mtframe_segmentation import masks
from mtframe_segmentation.masks import Masks

TARGET = Masks(DataInfo("mask", ("sky", "road", "car")))
WHOLE = Placement.scaled((2, 3), (2, 3), (1.0, 1.0))


def label(*rows: list[int]) -> dict[str, Tensor]:
    return {"mask": torch.tensor(rows, dtype=torch.uint8)}


def placed(*parts: tuple[dict[str, Tensor], Placement]) -> list[list[int]]:
    mask = TARGET.placed(parts)["mask"]
    assert mask.dtype == torch.uint8
    return mask.tolist()


def test_it_writes_files_checks_forms_and_rates() -> None:
    assert isinstance(TARGET, WritesFiles)
    assert isinstance(TARGET, ChecksForm)
    assert isinstance(TARGET, RatesPredictions)
    assert TARGET.mixes


def test_a_mask_is_moved_with_its_image_and_padding_is_not_known() -> None:
    one = label([0, 1, 2], [2, 255, 0])
    assert placed((one, Placement.scaled((2, 3), (2, 4), (1.0, 1.0), (1.0, 0.0)))) == [[255, 0, 1, 2], [255, 2, 255, 0]]
    assert placed((one, WHOLE.flipped())) == [[2, 1, 0], [0, 255, 2]]
    doubled = Placement.scaled((2, 3), (2, 4), (2.0, 2.0), (-1.0, -2.0))
    assert placed((one, doubled)) == [[2, 255, 255, 0], [2, 255, 255, 0]]


def test_windows_of_a_mosaic_keep_to_themselves() -> None:
    left = replace(WHOLE, window=(0.0, 0.0, 1.0, 2.0))
    # Its image begins in the middle of its window: before it is padding, not the image below.
    right = replace(
        Placement.scaled((2, 3), (2, 3), (1.0, 1.0), (2.0, 0.0)), window=(1.0, 0.0, 3.0, 2.0)
    )  # fmt: skip
    assert placed((label([0, 0, 0], [0, 0, 0]), left), (label([1, 1, 1], [2, 2, 2]), right)) == [
        [0, 255, 1], [0, 255, 2],
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("share", "expected"),
    [
        (0.9, [[0, 1, 255], [1, 1, 2]]),
        (0.75, [[0, 1, 255], [1, 1, 2]]),
        (0.5, [[0, 255, 255], [255, 1, 2]]),
        (0.25, [[0, 0, 0], [255, 1, 2]]),
    ],
)
def test_of_a_blend_a_pixel_has_the_class_of_three_quarters(share: float, expected: list[list[int]]) -> None:
    below, above = label([0, 0, 0], [255, 1, 2]), label([0, 1, 255], [1, 1, 2])
    assert placed((below, WHOLE), (above, replace(WHOLE, share=share))) == expected


def test_unknown_is_a_mask_without_pixels() -> None:
    nothing = TARGET.unknown()
    TARGET.check_label(nothing, (2, 3))
    assert placed((nothing, WHOLE)) == [[255] * 3] * 2
    known = TARGET.placed([(label([255, 255, 1], [255] * 3), WHOLE)])
    batch = TARGET.collate([TARGET.placed([(nothing, WHOLE)]), known])
    assert (batch["mask"].dtype, tuple(batch["mask"].shape)) == (torch.long, (2, 2, 3))
    assert TARGET.known(batch).tolist() == [False, True]
    assert TARGET.label_marks(nothing) == []


def test_scores_come_back_to_the_original_and_the_best_class_is_its_pixels() -> None:
    wanted = torch.from_numpy(np.random.default_rng(0).integers(0, 3, (30, 40), dtype=np.uint8))
    place = Placement.scaled((30, 40), (96, 96), (2.0, 2.0), (16.0, 0.0)).flipped()
    seen = TARGET.placed([({"mask": wanted}, place)])["mask"]
    # At half of the input's size a score for each pixel of the original.
    scores = torch.stack([(seen == number).float() for number in range(3)])[:, 1::2, 1::2]
    assert torch.equal(TARGET.restored([({"scores": scores}, place)])["mask"], wanted)


PLACES = {
    "fitted": Placement.scaled((33, 47), (64, 64), (64 / 47, 45 / 33), (0.0, 9.0)),
    "turned": Placement.by_inverse(np.array([[0.6, -0.3, 4.0], [0.3, 0.6, -5.0]]), (33, 47), (64, 64)),
}


@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
@pytest.mark.parametrize("at_once", [1, 10**4, 10**9])
def test_restoring_some_rows_at_a_time_changes_nothing(
    place: Placement, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = torch.randn(3, 16, 16, generator=torch.Generator().manual_seed(0)).double()
    monkeypatch.setattr(masks, "_SCORES", at_once)
    mask = TARGET.restored([({"scores": scores}, place)])["mask"]
    assert mask.dtype == torch.uint8
    assert (mask == place.restored_map(scores.float()).argmax(0)).float().mean() > 0.999


def test_of_several_views_the_mean_of_the_scores_decides() -> None:
    plain, mirrored = torch.tensor([0.6, 0.3, 0.1]), torch.tensor([0.1, 0.45, 0.45])
    views = [
        ({"scores": plain.view(3, 1, 1).expand(3, 2, 3)}, WHOLE),
        ({"scores": mirrored.view(3, 1, 1).expand(3, 2, 3)}, WHOLE.flipped()),
    ]
    assert TARGET.restored(views)["mask"].tolist() == [[1] * 3] * 2
    side = torch.zeros(3, 2, 3)
    side[2, :, 0] = 9.0
    # What is at the left of the mirror image is at the right.
    assert TARGET.restored([views[0], ({"scores": side}, WHOLE.flipped())])["mask"].tolist() == [[0, 0, 2]] * 2


@pytest.mark.parametrize("flipped", [False, True])
def test_a_head_may_say_masks_and_most_views_decide(flipped: bool) -> None:
    wanted = torch.from_numpy(np.random.default_rng(0).integers(0, 3, (30, 40), dtype=np.uint8))
    larger = Placement.scaled((30, 40), (72, 100), (2.0, 2.0), (8.0, 4.0))
    place = larger.flipped() if flipped else larger
    view = {"mask": TARGET.placed([({"mask": wanted}, place)])["mask"]}
    view["mask"][view["mask"] == 255] = 0
    other = {"mask": torch.zeros(72, 100, dtype=torch.uint8)}
    assert torch.equal(TARGET.restored([(view, place)])["mask"], wanted)
    assert torch.equal(TARGET.restored([(view, place), (other, place), (view, place)])["mask"], wanted)


def test_a_prediction_is_told_as_shares_and_written_as_a_palette_of_class_numbers() -> None:
    prediction = label([2, 2, 0, 2], [2, 0, 2, 2])
    assert TARGET.plain(prediction) == [{"label": "car", "share": 0.75}, {"label": "sky", "share": 0.25}]
    (name, content), = TARGET.files(prediction).items()  # fmt: skip
    assert name == "mask.png"
    with Image.open(io.BytesIO(content)) as picture:
        assert picture.mode == "P"
        assert np.array(picture).tolist() == prediction["mask"].tolist()
        assert picture.convert("RGB").getpixel((0, 0)) == ImageColor.getrgb(colour_of(2))


def test_marks_name_the_classes() -> None:
    prediction = label([2, 2, 0], [2, 0, 2])
    for mark in (*TARGET.marks(prediction), *TARGET.label_marks(prediction)):
        assert isinstance(mark, Mask)
        assert mark.names == {0: "sky", 1: "road", 2: "car"}
        assert torch.equal(mark.values, prediction["mask"])


def test_perfect_predictions_are_rated_1() -> None:
    target = label([0, 1, 255], [2, 255, 2])
    samples = [Sample(torch.empty(0), its, (2, 3)) for its in (target, TARGET.unknown())]
    perfect = [TARGET.perfect(sample) for sample in samples]
    assert [its["mask"].tolist() for its in perfect] == [[[0, 1, 0], [2, 0, 2]], [[0] * 3] * 2]
    for prediction in perfect:
        TARGET.check_prediction(prediction, (2, 3))
    assert TARGET.rightness(perfect, samples) == 1.0
    assert TARGET.rightness([label([0, 0, 0], [0, 0, 2])], samples[:1]) == 0.5
    assert TARGET.rightness(perfect[1:], samples[1:]) is None


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (torch.zeros(2, 3, dtype=torch.long), r"expected mask \(2, 3\) torch.uint8, got \(2, 3\) torch.int64"),
        (torch.zeros(3, 2, dtype=torch.uint8), r"got \(3, 2\) torch.uint8"),
        (torch.full((2, 3), 3, dtype=torch.uint8), r"expected classes of 0 to 2.*, got \[3\]"),
        (None, "got none"),
    ],
)
def test_other_forms_are_refused(mask: Tensor | None, message: str) -> None:
    given = {} if mask is None else {"mask": mask}
    for check in (TARGET.check_label, TARGET.check_prediction):
        with pytest.raises(ValueError, match=message):
            check(given, (2, 3))
    TARGET.check_label(label([0, 1, 2], [255, 0, 0]), (2, 3))
    with pytest.raises(ValueError, match=r"expected classes of 0 to 2, got \[255\]"):
        TARGET.check_prediction(label([0, 1, 2], [255, 0, 0]), (2, 3))


def test_more_classes_than_a_byte_holds_are_refused() -> None:
    Masks(DataInfo("mask", tuple(map(str, range(255)))))
    with pytest.raises(DataError, match="at most 255 classes, got 256"):
        Masks(DataInfo("mask", tuple(map(str, range(256)))))
