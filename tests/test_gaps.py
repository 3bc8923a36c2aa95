"""What the data alone decides is no score: it is n/a, with its name and why, wherever scores are shown."""

from __future__ import annotations

import io
import logging
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from rich.console import Console

from detected import INFO, prediction_of, sample_of
from mtframe.assembly import Assembly
from mtframe.cli import _work
from mtframe.data import DataInfo, Sample
from mtframe.evaluation import Evaluation
from mtframe.hooks import Hooks
from mtframe.recipe import Recipe
from mtframe.training import Progress, Trainer
from mtframe_classification.metrics import Classification, MultiLabel, Regression
from mtframe_detection.average_precision import CocoAP
from mtframe_face import identification as identification_module
from mtframe_face import verification as verification_module
from mtframe_face.identification import FaceIdentification
from mtframe_face.identities import Roles
from mtframe_face.identity_folders import IdentityFolders
from mtframe_face.pairs import Pairs
from mtframe_face.verification import FaceVerification
from mtframe_segmentation.mean_iou import MeanIoU
from toy import ToyMetric, toy_recipe

HERE = Path(__file__).resolve()
NOTHING = torch.empty(0, dtype=torch.uint8)


class Undecided(ToyMetric):
    """Cannot tell."""

    def compute(self) -> dict[str, float]:
        return {"accuracy": math.nan, "other": math.nan}

    def gaps(self) -> dict[str, str]:
        return {"accuracy": "nobody can tell"}


def scored(metric: Any, predictions: list[Any], targets: list[Any]) -> tuple[dict[str, float], dict[str, str]]:
    samples = [Sample(NOTHING, target, (8, 8), index) for index, target in enumerate(targets)]
    metric.update(predictions, samples)
    values = metric.compute()
    assert {name for name, value in values.items() if math.isnan(value)} == set(metric.gaps()) & set(values)
    return values, metric.gaps()


def embedded(metric: Any, count: int) -> Any:
    rng = np.random.default_rng(0)
    for index in range(count):
        prediction = {"embedding": torch.from_numpy(rng.normal(size=8))}
        metric.update([prediction], [Sample(NOTHING, {}, (8, 8), index)])
    return metric


def identification(people: list[int], gallery: list[int]) -> FaceIdentification:
    roles = Roles(np.array(people), np.array(gallery, bool))
    return embedded(FaceIdentification(SimpleNamespace(roles=roles)), len(people))  # type: ignore[arg-type]


def verification(same: list[bool], fold: list[int]) -> FaceVerification:
    first = np.arange(0, 2 * len(same), 2)
    pairs = Pairs(first, first + 1, np.array(same), np.array(fold))
    dataset: Any = SimpleNamespace(pairs=pairs, roles=None)
    return embedded(FaceVerification(dataset), 2 * len(same))


def test_accuracy_of_one_class_is_none() -> None:
    one = DataInfo("label", ("cat",))
    values, gaps = scored(Classification(one), [{"probabilities": torch.ones(1)}] * 2, [{"label": torch.tensor(0)}] * 2)
    assert all(math.isnan(value) for value in values.values())
    assert gaps["top1"] == "the model knows one class, so it is always right"


def test_a_split_of_one_class_is_noted() -> None:
    metric = Classification(DataInfo("label", ("cat", "dog")))
    assert metric.notes == ()
    values, gaps = scored(metric, [{"probabilities": torch.tensor([0.4, 0.6])}] * 2, [{"label": torch.tensor(1)}] * 2)
    assert values["top1"] == 1
    assert gaps == {"top5": "with 2 classes the right one is always among five"}
    assert metric.notes == (
        "all known images of this split are 'dog': a model that always says so would have a top1 of 1",
    )


def test_ap_of_a_label_that_all_images_have_is_none() -> None:
    info, found = DataInfo("labels", ("a", "b")), {"probabilities": torch.tensor([0.2, 0.6])}
    values, _ = scored(MultiLabel(info), [found] * 2, [{"labels": torch.tensor([1.0, 1.0])}] * 2)
    assert math.isnan(values["mAP"])
    values, _ = scored(MultiLabel(info), [found] * 2, [{"labels": torch.tensor([0.0, 0.0])}] * 2)
    assert all(math.isnan(value) for value in values.values())
    # Of the label that some have alone, one of two images: 1/2 where both are equally sure.
    mixed = [{"labels": torch.tensor([1.0, 1.0])}, {"labels": torch.tensor([0.0, 1.0])}]
    metric = MultiLabel(info)
    metric.update([found] * 2, [Sample(NOTHING, target, (8, 8), n) for n, target in enumerate(mixed)])
    assert metric.compute()["mAP"] == pytest.approx(0.5)


def test_numbers_that_do_not_differ_have_no_r2() -> None:
    values, gaps = scored(
        Regression(DataInfo("value", ("x",))),
        [{"values": torch.tensor([1.0])}] * 2,
        [{"value": torch.tensor([2.0])}] * 2,
    )
    assert values["mae"] == 1
    assert gaps == {"r2": "no number's true values differ on this split"}


def test_one_class_of_pixels_has_no_iou() -> None:
    mask = torch.zeros(8, 8, dtype=torch.uint8)
    values, gaps = scored(MeanIoU(DataInfo("mask", ("sky",))), [{"mask": mask}], [{"mask": mask}])
    assert math.isnan(values["mIoU"])
    assert "one class" in gaps["mIoU"]


def test_ap_without_objects_and_without_a_size_says_so() -> None:
    metric = CocoAP(INFO)
    metric.update([prediction_of([], [], [])], [sample_of(0, [[0, 0, 9, 9]], [1], [True])])
    assert all(math.isnan(value) for value in metric.compute().values())
    assert metric.gaps() == dict.fromkeys(metric.compute(), "no image of this split has an object")
    metric.update([prediction_of([], [], [])], [sample_of(1, [[0, 0, 40, 40]], [1])])
    missing = {name for name, value in metric.compute().items() if math.isnan(value)}
    assert missing == set(metric.gaps()) == {"APs", "APl", "ARs", "ARl"}
    assert metric.gaps()["APl"] == "no object is above 96² pixels large"


def test_one_person_in_a_gallery_is_always_found() -> None:
    metric = identification([0, 0, 1, 1], [1, 0, 0, 0])
    values = metric.compute()
    assert {name for name, value in values.items() if math.isnan(value)} == set(metric.gaps())
    assert metric.gaps()["rank-1"] == "one person is enrolled, and is always the most similar"
    assert metric.gaps()["tpir@fpir=1e-1"] == "takes 10 probes of unknown people, and there are 2"
    several = identification([0, 0, 1, 1], [1, 0, 1, 0])
    assert several.compute()["rank-1"] >= 0
    assert several.notes == ("2 people are enrolled, so that chance alone gives a rank-1 of 0.50",)


@pytest.mark.parametrize("same", [True, False])
def test_pairs_of_one_sort_have_no_accuracy(same: bool) -> None:
    metric = verification([same] * 4, [0, 0, 1, 1])
    values = metric.compute()
    missing = {name for name, value in values.items() if math.isnan(value)}
    assert missing == set(metric.gaps()) == set(values) - {"missing_pairs"}
    assert metric.gaps()["auc"] == f"every pair is of {'one person' if same else 'two people'}"


def test_few_pairs_are_noted_and_rates_below_one_pair_explained() -> None:
    metric = verification([True, False] * 10, [0, 0, 1, 1] * 5)
    values = metric.compute()
    assert {name for name, value in values.items() if math.isnan(value)} == set(metric.gaps())
    assert metric.gaps()["tar@far=1e-2"] == "takes 100 pairs of two people, and there are 10"
    assert metric.notes == ("20 pairs: each of them is 5.0% of the accuracy",)


def test_pairs_and_searches_are_compared_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    for module, name in ((verification_module, "verification_scores"), (identification_module, "search")):
        original = getattr(module, name)

        def counted(*args: Any, name: str = name, original: Any = original) -> Any:
            calls.append(name)
            return original(*args)

        monkeypatch.setattr(module, name, counted)
    pairs = Pairs(
        np.array([0, 2, 0, 1]), np.array([1, 3, 2, 3]), np.array([True, True, False, False]), np.arange(4) % 2
    )
    roles = Roles(np.array([0, 0, 1, 1]), np.array([1, 0, 1, 0], bool))
    dataset: Any = SimpleNamespace(pairs=pairs, roles=roles, people=("ann", "bob"))
    for metric in (FaceVerification(dataset), FaceIdentification(dataset)):
        embedded(metric, 4)
        metric.compute()
        assert metric.gaps()
        if isinstance(metric, FaceVerification):
            metric.thresholds()
        assert calls == (["verification_scores"] if metric.primary == "accuracy" else ["search"])
        # Others come, and are compared.
        rng = np.random.default_rng(1)
        prediction = {"embedding": torch.from_numpy(rng.normal(size=8))}
        metric.update([prediction], [Sample(NOTHING, {"identity": torch.tensor(0)}, (8, 8), 0)])
        metric.compute()
        assert len(calls) == 2
        calls.clear()


@pytest.mark.parametrize(("people", "aside", "enrolled"), [(6, 2, 2), (12, 4, 3), (36, 10, 7), (120, 12, 8)])
def test_held_out_people_are_enough_for_a_score(tmp_path: Path, people: int, aside: int, enrolled: int) -> None:
    for person in range(people):
        (tmp_path / f"p{person:03d}").mkdir()
        for number in range(2):
            (tmp_path / f"p{person:03d}" / f"{number}.jpg").touch()
    val = IdentityFolders("val", root=tmp_path)
    assert len(val.people) == aside
    assert val.roles is not None
    assert len(np.unique(val.roles.identity[val.roles.gallery])) == enrolled
    assert len(IdentityFolders("train", root=tmp_path).people) == people - aside


def test_name_and_reason_stand_for_a_value_on_the_terminal_and_in_the_log(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = Recipe.from_plain(toy_recipe({"o": {"metrics": [f"{HERE}:Undecided"]}}, steps=1))
    out, hooks = io.StringIO(), Hooks()
    hooks.register(Progress(Console(file=out, width=200)), "progress")
    scores = Trainer(Assembly(recipe), tmp_path / "run", hooks).fit()
    assert "o accuracy n/a (nobody can tell)" in out.getvalue()
    log = (tmp_path / "run" / "log.txt").read_text(encoding="utf-8")
    assert "step 1: o accuracy n/a (nobody can tell)" in log
    assert "nan" not in out.getvalue() + log.lower().replace("finance", "")
    monkeypatch.setattr(_work, "CONSOLE", Console(file=out, width=200))
    _work.print_scores(scores)
    said = capsys.readouterr().out
    assert said.splitlines() == [
        "o: accuracy n/a: nobody can tell", "o: other n/a: this data cannot resolve it",
        "o: cannot be ranked: accuracy is n/a",
    ]  # fmt: skip
    logging.getLogger("mtframe").handlers.clear()


def test_values_of_one_reason_share_a_sentence() -> None:
    result = Evaluation(
        {"a": 1.0, "b": math.nan, "c": math.nan}, {"a": True}, 3, notes=["so"], gaps={"b": "x", "c": "x"}
    )
    assert result.remarks == ["b, c n/a: x", "so"]
    assert result.shown == "1.0000"


def test_the_next_metric_ranks_where_the_first_cannot() -> None:
    values = {"a": math.nan, "b": 0.25}
    result = Evaluation(values, {"a": True, "b": False}, 3, gaps={"a": "x"})
    assert (result.primary, result.score, result.higher_is_better) == ("b", 0.25, False)
    assert result.shown == "b 0.2500"
    assert result.remarks == ["a n/a: x", "ranked by b, since a is n/a"]
    nothing = Evaluation({"a": math.nan, "b": math.nan}, {"a": True, "b": False}, 3, gaps={"a": "x"})
    assert (nothing.primary, nothing.shown) == ("a", "a n/a (x)")
    assert "cannot be ranked: a is n/a, and so is b" in nothing.remarks
    assert Evaluation({"a": 0.5, "b": 0.25}, {"a": True, "b": False}, 3).remarks == []


class Distance(ToyMetric):
    """Less is better."""

    primary = "distance"
    higher_is_better = False
    # Of one evaluation after the other; the training has a copy of this module to itself.
    values: ClassVar[list[float]] = [0.5, 0.1, 0.3]

    def compute(self) -> dict[str, float]:
        return {"distance": self.values.pop(0)}


class Late(ToyMetric):
    """Has no value at first."""

    primary = "late"
    values: ClassVar[list[float]] = [math.nan, math.nan, 1.0]

    def compute(self) -> dict[str, float]:
        return {"late": self.values.pop(0)}


def test_training_keeps_the_value_that_ranked_first(tmp_path: Path) -> None:
    recipe = Recipe.from_plain(
        toy_recipe({"o": {"metrics": [f"{HERE}:Late", f"{HERE}:Distance"]}}, steps=3, evaluate_every=0.25)
    )
    trainer = Trainer(Assembly(recipe), tmp_path / "run", Hooks())
    trainer.fit()
    assert [past["step"] for past in trainer.history] == [1, 2, 3]
    # A value that comes late is another: 1.0 beats no distance.
    assert trainer.state.best.tasks == {"o": 0.1}
    assert trainer.state.best.steps == {"best_o": 2, "best": 2}
    log = (tmp_path / "run" / "log.txt").read_text(encoding="utf-8")
    assert log.count("task o: ranked by distance, since late is n/a") == 1
    assert "step 2: o distance 0.1000" in log


def test_people_who_were_learned_elsewhere_are_noted() -> None:
    pairs = Pairs(np.array([0]), np.array([1]), np.array([True]), np.array([0]))
    dataset: Any = SimpleNamespace(
        pairs=pairs, roles=Roles(np.array([0, 0, 1, 1]), np.array([1, 0, 1, 0], bool)), people=("ann", "bob")
    )
    learned = {"runs/a (task faces)": ("ann", "eve"), "runs/gone": (), "task others": ("joe",)}
    for metric in (FaceVerification(dataset, learned=learned), FaceIdentification(dataset, learned=learned)):
        assert metric.notes[:2] == (
            "1 of the 2 people have names that runs/a (task faces) has learned (ann): if they are the same, the score "
            "says little about strangers",
            "whether the weights of runs/gone have learned people of this split is not known",
        )
        assert not any("others" in note for note in metric.notes)
