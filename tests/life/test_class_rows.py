"""Rows of classes come over by the names of the classes, never because there are as many."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from mtframe.assembly import Assembly
from mtframe.data import DataInfo
from mtframe.kinds import FeatureSpec
from mtframe.recipe import Recipe
from mtframe.training import Trainer
from mtframe.training._class_rows import by_name, class_axes
from mtframe.training._start import start_model
from toy import ToyData, ToyHead, ToyLoss, toy_recipe

HERE = str(Path(__file__).resolve())


class Named(ToyData):
    """Toy pictures with names of one's own."""

    def __init__(self, split: str, *, names: list[str], root: Path | None = None, count: int = 8) -> None:
        super().__init__(split, root=root, count=count)
        self.info = DataInfo("label", tuple(names))


class Mixed(ToyHead):
    """A head with tensors of several layouts."""

    def __init__(self, features: Sequence[FeatureSpec], info: DataInfo) -> None:
        super().__init__(features, info)
        count = len(info.classes)
        self.columns = nn.Parameter(torch.rand(5, count))
        self.anchors = nn.Parameter(torch.rand(3 * count))
        # As long as there are classes in one of the tests, and not for them.
        self.three = nn.Parameter(torch.rand(3))


class Centres(ToyLoss):
    """A loss with a centre for each class."""

    def __init__(self, info: DataInfo) -> None:
        super().__init__()
        self.centres = nn.Parameter(torch.rand(len(info.classes), 4))

    def forward(self, outputs: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {"loss": super().forward(outputs, targets)["cross_entropy"] + 0 * self.centres.sum()}


def assembled(names: str, **train: Any) -> Assembly:
    task = {
        "dataset": {"name": f"{HERE}:Named", "names": list(names)},
        "head": f"{HERE}:Mixed", "loss": f"{HERE}:Centres",
    }  # fmt: skip
    return Assembly(Recipe.from_plain(toy_recipe({"one": task}, **train)))


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("rows") / "old"
    Trainer(assembled("abc", steps=1), run).fit()
    return run


def weights(run: Path) -> dict[str, Tensor]:
    return load_file(run / "checkpoints" / "best" / "weights.safetensors")


ROWS = {"heads.one.linear.weight": 0, "heads.one.linear.bias": 0, "heads.one.columns": 1, "losses.one.centres": 0}


def test_what_depends_on_classes_is_found_by_building_for_one_more() -> None:
    assembly = assembled("abc")
    assert class_axes(assembly.model(), assembly, "one") == ROWS | {"heads.one.anchors": None}


@pytest.mark.parametrize(("names", "same"), [("cad", {0: 2, 1: 0}), ("zcyxa", {1: 2, 4: 0}), ("b", {0: 1})])
def test_rows_of_the_same_name_are_taken_and_others_begin_anew(old: Path, names: str, same: dict[int, int]) -> None:
    assembly = assembled(names, start=str(old))
    torch.manual_seed(3)
    fresh = assembly.model().state_dict()
    torch.manual_seed(3)
    model, loaded = start_model(assembly, restoring=False)
    assert loaded is not None
    state, before = model.state_dict(), weights(old)
    for name, axis in ROWS.items():
        for row in range(len(names)):
            found = state[name].select(axis, row)
            if row in same:
                assert torch.equal(found, before[name].select(axis, same[row]))
            else:
                assert torch.equal(found, fresh[name].select(axis, row))
    # Nobody knows which of them are whose, even where there are as many.
    assert torch.equal(state["heads.one.anchors"], fresh["heads.one.anchors"])
    assert torch.equal(state["heads.one.three"], before["heads.one.three"])
    said = loaded.lines()
    assert (
        f"  losses.one.centres: other classes: {len(same)} of {len(names)} rows are those of classes of the same name, "
        f"{len(names) - len(same)} begin anew" in said
    )


def test_as_many_other_people_get_nothing(old: Path) -> None:
    model, loaded = start_model(assembled("xyz", start=str(old)), restoring=False)
    assert loaded is not None
    assert "  losses.one.centres: the weights have other classes; all 3 rows begin anew" in loaded.lines()
    for name in (*ROWS, "heads.one.anchors"):
        assert not torch.equal(model.state_dict()[name], weights(old)[name])
        assert name not in loaded.sources
    assert any(name.startswith("sharing.") for name in loaded.sources)


def test_the_same_classes_are_taken_whole(old: Path) -> None:
    model, loaded = start_model(assembled("abc", start=str(old)), restoring=False)
    assert loaded is not None
    assert not loaded.rows
    assert not loaded.missing
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in weights(old).items())


def test_of_a_file_in_no_run_it_is_said_that_nobody_knows_the_names(old: Path, tmp_path: Path) -> None:
    file = tmp_path / "some.safetensors"
    file.write_bytes((old / "checkpoints" / "best" / "weights.safetensors").read_bytes())
    _, loaded = start_model(assembled("xyz", start=str(file)), restoring=False)
    assert loaded is not None
    assert sorted(loaded.unnamed) == sorted([*ROWS, "heads.one.anchors"])
    assert any("losses.one.centres: rows of classes in the order of the weights" in line for line in loaded.lines())


@pytest.mark.parametrize(("old_", "new"), list(product(("", "a", "abc", "fca"), ("a", "cab", "dfaec", "xy"))))
def test_rows_go_where_their_names_are(old_: str, new: str) -> None:
    # A row holds the letter's number; of ours, the negative one.
    theirs = torch.tensor([[float(ord(name))] * 2 for name in old_]).reshape(-1, 2)
    ours = torch.tensor([[-float(ord(name))] * 2 for name in new])
    found, count = by_name(theirs, ours, 0, old_, new)
    assert count == len(set(old_) & set(new))
    assert found.tolist() == [[float(ord(name)) * (1 if name in old_ else -1)] * 2 for name in new]


def test_what_was_learned_elsewhere_is_told_to_metrics_through_all_runs(old: Path, tmp_path: Path) -> None:
    middle = tmp_path / "middle"
    Trainer(assembled("xy", start=str(old), steps=1), middle).fit()
    found = assembled("pq", start=str(middle)).learned("one")
    assert set(found.values()) == {("x", "y"), ("a", "b", "c")}
    file = tmp_path / "some.safetensors"
    file.write_bytes((old / "checkpoints" / "best" / "weights.safetensors").read_bytes())
    assert assembled("pq", start=str(file)).learned("one") == {str(file): ()}
    assert assembled("pq").learned("one") == {}
