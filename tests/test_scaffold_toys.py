"""The components that `mtframe plugins new` writes compute what they say: hand computations and scikit-learn."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import balanced_accuracy_score
from torch import Tensor

from fresh import needs
from mtframe.data import DataInfo, Placement, Sample
from mtframe.errors import DataError, MtframeError, RecipeError
from mtframe.kinds import FeatureSpec
from mtframe.model import Network
from mtframe.registry import resolve
from mtframe.schedule import turns
from mtframe.templates import write_package
from toy import ToyBackbone

INFO = DataInfo("label", ("a", "b", "c", "d"))


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Any]:
    """The class that is written for a kind."""
    folder = tmp_path_factory.mktemp("written")

    def load(kind: str) -> Any:
        if not (folder / kind).exists():
            write_package("kite", kind, folder / kind)
        return resolve(kind, f"{folder / kind / 'src' / 'kite' / kind}.py:Kite").component

    return load


def test_focal_loss_is_that_of_the_paper(written: Callable[[str], Any]) -> None:
    logits = torch.tensor([[0.8, 0.2], [0.1, 0.9], [0.5, 0.5]]).log()
    outputs, targets = {"logits": logits}, {"label": torch.tensor([0, 0, -1])}
    by_hand = -(0.2**2 * math.log(0.8) + 0.9**2 * math.log(0.1)) / 2
    assert written("loss")()(outputs, targets)["focal"].item() == pytest.approx(by_hand, rel=1e-5)
    entropy = torch.nn.functional.cross_entropy(logits, targets["label"], ignore_index=-1)
    assert written("loss")(gamma=0.0)(outputs, targets)["focal"].item() == pytest.approx(entropy.item(), rel=1e-6)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("label", [0, 1, -1])
def test_focal_loss_and_its_gradient_are_finite(written: Callable[[str], Any], gamma: float, label: int) -> None:
    logits = torch.tensor([[200.0, -200.0]], requires_grad=True)
    loss = written("loss")(gamma=gamma)({"logits": logits}, {"label": torch.tensor([label])})["focal"]
    loss.backward()
    assert torch.isfinite(loss)
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()
    assert label >= 0 or loss == 0


@pytest.mark.parametrize("adjusted", [False, True])
def test_balanced_accuracy_is_scikit_learn_s(written: Callable[[str], Any], adjusted: bool) -> None:
    rng = np.random.default_rng(0)
    labels = np.concatenate([np.arange(4), rng.choice(4, 60, p=[0.7, 0.2, 0.05, 0.05])])
    probabilities = rng.dirichlet(np.ones(4), 64) + 0.6 * np.eye(4)[labels] * (rng.random((64, 1)) < 0.5)
    samples = [sample(index, label) for index, label in enumerate(labels)]
    predictions = [{"probabilities": torch.from_numpy(row)} for row in probabilities]
    first, second = (written("metric")(INFO, adjusted=adjusted) for _ in range(2))
    # In two halves that overlap, backwards, with one image of no known class.
    first.update(predictions[:40][::-1], samples[:40][::-1])
    second.update([*predictions[30:], predictions[0]], [*samples[30:], sample(64, -1)])
    first.merge(second)
    expected = balanced_accuracy_score(labels, probabilities.argmax(1), adjusted=adjusted)
    assert first.compute()["balanced_accuracy"] == pytest.approx(expected)
    recalls = [(probabilities[labels == c].argmax(1) == c).mean() for c in range(4)]
    assert first.compute()["worst_class"] == pytest.approx(min(recalls))
    first.reset()
    assert math.isnan(first.compute()["balanced_accuracy"])


def sample(index: int, label: int) -> Sample:
    return Sample(torch.empty(0, dtype=torch.uint8), {"label": torch.tensor(int(label))}, (8, 8), index)


def test_log_mean_gives_each_task_the_same_weight(written: Callable[[str], Any]) -> None:
    losses = {name: torch.tensor(value, requires_grad=True) for name, value in (("a", 0.5), ("b", 200.0))}
    total = written("balancer")()(losses)
    assert total.item() == pytest.approx((math.log(0.5) + math.log(200)) / 2)
    total.backward()
    # d/dL of the mean of two logarithms is 1 / (2 L): times L, a half for both.
    for loss in losses.values():
        assert loss.grad is not None
        assert (loss.grad * loss).item() == pytest.approx(0.5, rel=1e-5)
    assert torch.isfinite(written("balancer")()({"a": torch.tensor(0.0)}))


def test_blocks_of_steps_go_round(written: Callable[[str], Any]) -> None:
    schedule = written("schedule")({"a": 5, "b": 2}, block=2)
    assert [*(next(iter(turns(schedule, step))) for step in range(6))] == ["a", "a", "b", "b", "a", "a"]
    # Three rounds of four steps: the fifth batch of a is the first one of the third.
    assert (schedule.steps_per_epoch, schedule.draws(12)) == (12, {"a": 6, "b": 6})
    with pytest.raises(RecipeError, match="block: must be 1 or more, got 0"):
        written("schedule")({"a": 1}, block=0)


def test_the_transform_says_where_the_picture_is(written: Callable[[str], Any]) -> None:
    # 20 pixels high, 40 wide, decoded at half of that; the right half is bright.
    image = torch.zeros(3, 10, 20, dtype=torch.uint8)
    image[:, :, 10:] = 200
    samples = [Sample(image, {"label": torch.tensor(n)}, (20, 40), n) for n in range(2)]
    for flip, left in ((0.0, 0), (1.0, 200)):
        inputs = written("transform")(32, True, flip=flip)(samples, np.random.default_rng(0))
        assert inputs.images.shape == (2, 3, 32, 32)
        assert inputs.images[:, :, :, 2].eq(left).all()
        assert [[placement.sample for placement in its] for its in inputs.placements] == [[0], [1]]
        bright = torch.tensor([[16.0, 0, 32, 32] if left == 0 else [0.0, 0, 16, 32]])
        (placement,) = inputs.placements[1]
        torch.testing.assert_close(placement.restored_boxes(bright), torch.tensor([[20.0, 0, 40, 20]]))
    evaluated = written("transform")(32, False, flip=1.0)(samples, np.random.default_rng(0))
    assert evaluated.images[0, 0, 0, 0] == 0


def test_a_circle_goes_with_its_picture_and_comes_back(written: Callable[[str], Any]) -> None:
    circles = written("target")(DataInfo("kite", ("x", "y", "radius")))
    label = {"circle": torch.tensor([10.0, 20.0, 4.0])}
    # Half as large, 3 pixels from the left, and that mirrored in 40 pixels.
    placement = Placement.scaled((40, 60), (40, 40), (0.5, 0.5), (3.0, 5.0)).flipped()
    placed = circles.placed([(label, placement)])
    assert placed["circle"].tolist() == [32.0, 15.0, 2.0]
    assert circles.restored([(placed, placement)])["circle"].tolist() == [10.0, 20.0, 4.0]
    assert circles.plain(label) == {"x": 10.0, "y": 20.0, "radius": 4.0}
    # Its middle is beyond the right border.
    beyond = circles.placed([(label, Placement.scaled((40, 60), (40, 40), (1.0, 1.0), (31.0, 0.0)))])
    assert circles.known(circles.collate([placed, beyond, circles.unknown()])).tolist() == [True, False, False]


def test_the_sharing_is_network_s_until_a_task_changes_its_own(written: Callable[[str], Any]) -> None:
    torch.manual_seed(0)
    backbone = ToyBackbone()
    same = deepcopy(backbone)
    shared = written("sharing")(backbone, [["a", "b"], ["c"]]).eval()
    plain = Network(same, [["a", "b"], ["c"]]).eval()
    images = {name: torch.randn(2, 3, 32, 32) for name in "ac"}
    before, expected = shared(images, {"b": "a"}), plain(images, {"b": "a"})
    assert all(torch.equal(*pair) for task in "abc" for pair in zip(before[task], expected[task], strict=True))
    with torch.no_grad():
        shared.own["task b"].scale[0].fill_(2)
        shared.own["task b"].shift[1].fill_(1)
    after = shared(images, {"b": "a"})
    torch.testing.assert_close(after["b"], [2 * before["b"][0], before["b"][1] + 1])
    assert all(torch.equal(*pair) for task in "ac" for pair in zip(before[task], after[task], strict=True))
    assert shared.features == backbone.features


def test_the_sharing_s_weights_are_a_task_s_whatever_the_order_of_groups(written: Callable[[str], Any]) -> None:
    trained = written("sharing")(ToyBackbone(), [["a", "type"], ["c"]])
    with torch.no_grad():
        for number, name in enumerate(("a", "type", "c")):
            trained.own[f"task {name}"].scale[0].fill_(number)
    # As where the run is loaded with another size for the first task.
    loaded = written("sharing")(ToyBackbone(), [["c"], ["type", "a"]])
    loaded.load_state_dict(trained.state_dict())
    images = {name: torch.randn(2, 3, 32, 32) for name in ("a", "type", "c")}
    before, after = trained.eval()(images), loaded.eval()(images)
    assert all(torch.equal(*pair) for task in images for pair in zip(before[task], after[task], strict=True))


@needs("mypy")
def test_a_written_package_may_import_torchvision_under_strict_types(tmp_path: Path) -> None:
    write_package("kite", "metric", tmp_path / "kite")
    for file in (tmp_path / "kite" / "src" / "kite").glob("*.py"):
        file.write_text("from torchvision.ops import box_iou as box_iou\n", encoding="utf-8")
    command = [sys.executable, "-m", "mypy", "--cache-dir", str(tmp_path / "cache")]
    done = subprocess.run(command, cwd=tmp_path / "kite", capture_output=True, encoding="utf-8")
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert done.stdout.startswith("Success: "), done.stdout


def test_shapes_are_told_by_their_area(written: Callable[[str], Any]) -> None:
    data = written("dataset")("train", train=300, size=64)
    images = [data[index] for index in range(len(data))]
    assert [int(image.target["label"]) for image in images[:4]] == [0, 1, 2, 0]
    # Of the square around each shape: all of a square, pi / 4 of a disc, half of a triangle.
    filled = torch.tensor([_filled(image.image) for image in images]).reshape(-1, 3).mean(0)
    torch.testing.assert_close(filled, torch.tensor([math.pi / 4, 1, 0.5]), atol=0.06, rtol=0)
    assert torch.equal(images[5].image, written("dataset")("train", train=300, size=64)[5].image)
    assert not torch.equal(images[5].image, written("dataset")("val", size=64)[5].image)


def _filled(image: Tensor) -> float:
    """The part of the box around what differs from the corner that does."""
    shown = (image.float() - image[:, :1, :1].float()).abs().amax(0) > 40
    rows, columns = shown.any(1).sum(), shown.any(0).sum()
    return float(shown.sum() / (rows * columns))


def test_the_head_looks_at_as_many_maps_as_there_are(written: Callable[[str], Any]) -> None:
    features = (FeatureSpec("fine", 4, 8), FeatureSpec("coarse", 6, 16))
    maps = [torch.randn(2, 4, 8, 8), torch.randn(2, 6, 4, 4)]
    for levels, channels in ((1, 6), (2, 10), (5, 10)):
        head = written("head")(features, INFO, levels=levels)
        assert head.classify[1].in_features == channels
        prediction = head.predict(head(maps), None)[1]
        assert prediction["probabilities"].sum().item() == pytest.approx(1)


def test_the_best_scores_are_kept(written: Callable[[str], Any], tmp_path: Path) -> None:
    trainer = SimpleNamespace(run=SimpleNamespace(path=tmp_path), best_steps={"best": 10, "best_a": 10, "best_b": 10})
    hooks = written("hooks")(file="top.json")
    hooks.training_started(trainer)
    hooks.evaluation_ended(10, {"a": 0.5, "b": float("nan")})
    # Of b, where lower is better, a lower score is the best now.
    trainer.best_steps = {"best": 20, "best_a": 10, "best_b": 20}
    hooks.evaluation_ended(20, {"a": 0.4, "b": 3.0})
    expected = {"a": {"score": 0.5, "step": 10}, "b": {"score": 3.0, "step": 20}}
    assert json.loads((tmp_path / "top.json").read_text(encoding="utf-8")) == expected
    resumed = written("hooks")(file="top.json")
    resumed.training_started(trainer)
    resumed.evaluation_ended(30, {"a": 0.1, "b": 9.0})
    assert json.loads((tmp_path / "top.json").read_text(encoding="utf-8")) == expected


@pytest.mark.parametrize(
    ("kind", "wired", "options", "message"),
    [
        ("backbone", (), {"width": 3}, "width: must be 4 or more, got 3"),
        ("head", ((), INFO), {"levels": 0}, "levels: must be 1 or more, got 0"),
        ("head", ((), INFO), {"dropout": 1.0}, "dropout: must be 0 to below 1, got 1"),
        ("head", ((), DataInfo("label", ("a",))), {}, "takes at least 2, the training data has 1"),
        ("loss", (), {"gamma": -0.5}, "gamma: must be 0 or more, got -0.5"),
        ("dataset", ("test",), {}, "split: there is no 'test', only train, val"),
        ("dataset", ("train",), {"size": 8}, "size: must be 16 or more, got 8"),
        ("transform", (32, True), {"flip": 1.5}, "flip: must be 0 to 1, got 1.5"),
        ("balancer", (), {"floor": 0.0}, "floor: must be above 0, got 0"),
        ("hooks", (), {"file": "../best.json"}, "file: expected a name that ends in .json, without a folder"),
    ],
)
def test_an_option_out_of_range_is_refused(
    written: Callable[[str], Any], kind: str, wired: tuple[Any, ...], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(MtframeError, match=message) as caught:
        written(kind)(*wired, **options)
    assert isinstance(caught.value, RecipeError | DataError)
