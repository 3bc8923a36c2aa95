"""A stranger's kind of target, written from the docs alone: lent, moved, drawn, written and checked by the kit.

`polylines` is a package of its own, which the framework knows nothing of; it is found by its entry points.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polylines
import pytest
import torch
from PIL import Image
from polylines.dataset import Lanes
from polylines.lines import along, pieces_of
from polylines.target import Polylines
from torch import Tensor
from torch.nn import functional

from command import mtframe
from fake_dist import make_dist
from mtframe.assembly import Assembly
from mtframe.data import DataInfo, MixedBatches, Placement
from mtframe.recipe import Recipe
from mtframe.testing import Kit, Skip
from mtframe.yaml import dump_yaml

ENTRIES = {
    "mtframe.target": {"polylines": "polylines.target:Polylines"},
    "mtframe.dataset": {"lanes": "polylines.dataset:Lanes"},
    "mtframe.head": {"lines": "polylines.model:LineHead"},
    "mtframe.loss": {"lines": "polylines.model:LineLoss"},
    "mtframe.metric": {"line-f1": "polylines.metric:LineF1"},
    "mtframe.preset": {"lane-detection": "polylines.presets:LaneDetection"},
}


@pytest.fixture(scope="module", autouse=True)
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What `pip install` does."""
    site = make_dist(tmp_path_factory.mktemp("site"), "polylines", ENTRIES)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(Path(polylines.__file__).parents[1])
        patch.syspath_prepend(site)
        yield


@pytest.fixture(scope="module")
def roads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data") / "roads"
    Lanes.synthesize(root, train=24, val=6)
    return root


def recipe(roads: Path, **letterbox: Any) -> dict[str, Any]:
    """Lines on the pictures of a classification, whose transform moves and mixes them."""
    letterbox = {"name": "letterbox", "scale": [0.8, 1.6], "flip": 0.5, "mosaic": 0.5, **letterbox}
    counted = {
        "preset": "image-classification",
        "dataset": {"root": str(roads)},
        "transform": letterbox,
        "size": 64,
        "batch_size": 8,
    }
    lanes = {"preset": "lane-detection", "images": "counted", "dataset": {"root": str(roads)}}
    train = {"workers": 0, "precision": "fp32", "ema": None, "evaluate_every": None, "log_every": 1, "device": "cpu"}
    return {
        "backbone": {"name": "tutorial", "widths": [16, 32, 48]},
        "tasks": {"counted": counted, "lanes": lanes},
        "train": {"steps": 50, "lr": 5e-3, **train},
    }


@pytest.fixture(scope="module")
def run(roads: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run in which lines are learned on another task's pictures."""
    folder = tmp_path_factory.mktemp("runs")
    (folder / "recipe.yaml").write_text(dump_yaml(recipe(roads)), encoding="utf-8")
    result = mtframe("train", folder / "recipe.yaml", "--out", folder / "run")
    assert (result.code, result.err) == (0, ""), result
    return folder / "run"


def test_the_kit_finds_nothing_wrong_with_it() -> None:
    passed = set()
    for case in Kit("polylines").cases():
        # A process of its own, which imports torch; what it finds is tested with the kit.
        if case.check.name in ("imports-silently", "imports-no-torch"):
            continue
        try:
            case.run()
        except Skip:
            continue
        passed.add(case.id)
    assert {"target:polylines-there-and-back", "target:polylines-several-in-one", "loss:lines-teaches"} <= passed
    assert {"dataset:lanes-labels-by-id", "metric:line-f1-perfect-is-best", "head:lines-predictions"} <= passed
    assert len(passed) > 55


def test_lines_are_learned_on_the_pictures_of_a_task_that_knows_no_lines(run: Path) -> None:
    rows = [line.split(",") for line in (run / "metrics.csv").read_text(encoding="utf-8").splitlines()]
    losses = [float(row[rows[0].index("lanes/line")]) for row in rows[1:]]
    assert losses[-1] < losses[0] / 2
    scores = json.loads(mtframe("evaluate", run, "--json").out)
    assert scores["lanes"]["f1"] > 0.5
    assert set(scores) == {"counted", "lanes"}


def test_lines_lie_on_their_pixels_cropped_scaled_mirrored_and_in_mosaics(roads: Path) -> None:
    plain = recipe(roads, brightness=0.0, contrast=0.0, saturation=0.0, mosaic=0.7)
    assembly = Assembly(Recipe.from_plain(plain))
    source = assembly.sources()["counted"]
    batches = MixedBatches({"counted": source}, seed=3)
    several = on = off = beside = cut = all_lit = astray = 0
    for step in range(4):
        samples, inputs, _ = batches.inputs("counted", step)
        labels = source.viewers["lanes"].placed(source.viewers["lanes"].labels(samples)[0], inputs)
        for image, its, label in zip(inputs.images, inputs.placements, labels, strict=True):
            several += len(its) > 1
            cut += int((~label["sure"]).sum())
            light = image.amax(0).float()
            # Lines are a few pixels wide.
            around = functional.max_pool2d(light[None], 3, 1, 1)[0]
            seen = around[places(label["points"], image.shape[-1])]
            on += int((seen > 120).sum())
            off += int((seen <= 120).sum())
            beside += int((around[places(label["points"] + 6, image.shape[-1])] <= 120).sum())
            # And the other way round: what is light is on a line.
            lit = (light > 180).nonzero().tolist()
            all_lit += len(lit)
            astray += sum(float(nearest(label["points"], x + 0.5, y + 0.5)) >= 5 for y, x in lit)
    assert several > 8
    assert on > 500
    assert off < 0.05 * on
    # But along the edge of a window, which shows one side of a line whose middle is outside of it.
    assert astray < 0.03 * all_lit
    # Six pixels further few are.
    assert beside > on / 2
    assert cut > 0


def places(lines: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """Rows and columns of pixels along lines."""
    columns, rows = along(lines).reshape(-1, 2).floor().long().clamp(0, side - 1).unbind(1)
    return rows, columns


def nearest(lines: Tensor, x: float, y: float) -> Tensor:
    return (along(lines, 24).reshape(-1, 2) - torch.tensor([x, y])).norm(dim=1).amin()


def test_predictions_are_drawn_and_written(run: Path, roads: Path, tmp_path: Path) -> None:
    picture = sorted((roads / "val" / "two").iterdir())[0]
    result = mtframe("predict", run, picture, "-t", "lanes", "--json", "--out", tmp_path)
    assert (result.code, result.err) == (0, "")
    described = json.loads(result.out)
    (said,) = described if isinstance(described, list) else [described]
    lines = said["tasks"]["lanes"]
    assert lines
    assert {name for line in lines for name in line} == {"label", "score", "points"}
    assert all(line["label"] == "lane" and len(line["points"]) > 1 for line in lines)
    (drawn,) = tmp_path.iterdir()
    with Image.open(drawn) as shown, Image.open(picture) as plain:
        difference = np.abs(np.asarray(shown, int) - np.asarray(plain.resize(shown.size), int)).sum(2)
        factor = shown.width / plain.width
    x, y = lines[0]["points"][len(lines[0]["points"]) // 2]
    around = difference[int(y * factor) - 4 : int(y * factor) + 5, int(x * factor) - 4 : int(x * factor) + 5]
    assert around.max() > 100
    # Away from all lines and names nothing is drawn.
    assert (difference < 20).mean() > 0.3


@pytest.mark.parametrize(
    ("line", "window", "hidden", "expected"),
    [
        ([[1, 1], [4, 1], [4, 5]], (0, 0, 9, 9), [], [[[1, 1], [4, 1], [4, 5]]]),
        ([[-4, 2], [4, 2]], (0, 0, 9, 9), [], [[[0, 2], [4, 2]]]),
        # Out at the top and in again.
        ([[2, 4], [2, -4], [6, -4], [6, 4]], (0, 0, 9, 9), [], [[[2, 4], [2, 0]], [[6, 0], [6, 4]]]),
        ([[1, 3], [9, 3]], (0, 0, 9, 9), [(3, 0, 5, 9)], [[[1, 3], [3, 3]], [[5, 3], [9, 3]]]),
        ([[3, 3], [4, 4]], (0, 0, 9, 9), [(2, 2, 9, 9)], []),
        ([[1, 1], [4, 1], [4, 1], [4, 1]], (0, 0, 9, 9), [], [[[1, 1], [4, 1]]]),
    ],
    ids=["whole", "cut", "twice", "covered in the middle", "covered", "padded"],
)
def test_what_is_seen_of_a_line(
    line: list[Any], window: tuple[float, ...], hidden: list[tuple[float, ...]], expected: list[Any]
) -> None:
    pieces = pieces_of(torch.tensor(line).float(), window, hidden)
    assert len(pieces) == len(expected)
    for piece, wanted in zip(pieces, expected, strict=True):
        torch.testing.assert_close(piece, torch.tensor(wanted).float(), atol=2e-3, rtol=0)


def test_two_views_of_a_line_are_one_and_of_two_lines_two() -> None:
    kind = Polylines(DataInfo("polylines", ("white", "yellow")))
    as_it_is = Placement.scaled((40, 60), (40, 60), (1.0, 1.0))
    line = torch.tensor([[10.0, 35], [12, 20], [20, 5]])
    said = {"points": line[None], "labels": torch.tensor([1]), "scores": torch.tensor([0.8])}
    mirrored = {**said, "points": as_it_is.flipped().points(line)[None], "scores": torch.tensor([0.9])}
    other = {**said, "points": line[None] + torch.tensor([20.0, 0])}
    merged = kind.restored([(said, as_it_is), (mirrored, as_it_is.flipped()), (other, as_it_is)])
    torch.testing.assert_close(merged["points"], torch.stack([line, line + torch.tensor([20.0, 0])]))
    torch.testing.assert_close(merged["scores"], torch.tensor([0.9, 0.8]))
