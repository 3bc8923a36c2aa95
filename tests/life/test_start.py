"""Starting from the weights of another run."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from toy_tasks import TOY, done, train_two

from command import mtframe
from mtframe.assembly import Assembly
from mtframe.errors import RecipeError, UntrustedError
from mtframe.recipe import Recipe
from mtframe.run import trust
from mtframe.training import Trainer
from mtframe.training._start import Start, start_model
from mtframe.yaml import dump_yaml, parse_yaml
from toy import toy_recipe


def assembled(tasks: Any = None, *, start: Path, **change: Any) -> Assembly:
    return Assembly(Recipe.from_plain(toy_recipe(tasks, start=str(start)) | change))


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "checkpoints" / "best" / "weights.safetensors")


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train_two(tmp_path_factory.mktemp("start") / "old")


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with a pass for each of its tasks."""
    return train_two(tmp_path_factory.mktemp("start") / "split", sizes=(32, 64))


def test_the_same_recipe_starts_where_the_other_ended(old: Path, tmp_path: Path) -> None:
    said = done("train", old.with_suffix(".yaml"), "--from", old, "train.ema=0.9", "--out", tmp_path / "new").out
    assert f"started from {old / 'checkpoints' / 'best' / 'weights.safetensors'}: 21 of 21 tensors loaded" in said
    assert "did not fit" not in said
    model, loaded = start_model(assembled(start=old), restoring=False)
    assert loaded is not None
    assert (loaded.unfit, loaded.missing, loaded.unused) == ({}, [], [])
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in weights(old).items())


def test_the_average_starts_from_what_was_loaded(old: Path, tmp_path: Path) -> None:
    recipe = Recipe.from_plain(toy_recipe(start=str(old), ema=0.9))
    trainer = Trainer(Assembly(recipe), tmp_path / "new")
    averaged = trainer.parts.evaluated_model.state_dict()
    assert trainer.parts.evaluated_model is not trainer.model
    assert all(torch.equal(averaged[name], tensor) for name, tensor in weights(old).items())


def test_what_was_and_was_not_loaded_is_said(old: Path, tmp_path: Path) -> None:
    plain = toy_recipe({"one": {"head": {"name": f"{TOY}:ToyHead", "bias": False}}, "other": {}}, steps=1)
    plain["backbone"] = {"name": f"{TOY}:ToyBackbone", "width": 8}
    plain["tasks"]["one"]["size"] = 64
    file = tmp_path / "recipe.yaml"
    file.write_text(dump_yaml(plain), encoding="utf-8")
    said = done("train", file, "--from", old, "--out", tmp_path / "new").out
    lines = said[: said.index("training ")].splitlines()
    assert lines == [
        f"started from {old / 'checkpoints' / 'best' / 'weights.safetensors'}: 18 of 20 tensors loaded",
        "  normalisation: 3 of 3",
        "  sharing: 14 of 14",
        "  heads.one: 1 of 1",
        "  heads.other: 0 of 2",
        "  not used: heads.one (1 of its tensors)",
        "  not used: heads.two (2 of its tensors)",
    ]
    log = (tmp_path / "new" / "log.txt").read_text(encoding="utf-8")
    assert all(line in log for line in lines)


def test_what_does_not_fit_is_named_with_both_shapes(old: Path, tmp_path: Path) -> None:
    said = done("train", old.with_suffix(".yaml"), "backbone.width=4", "--from", old, "--out", tmp_path / "new").out
    assert "  sharing: 2 of 14\n" in said
    assert "  did not fit: sharing.backbone.stem.0.weight: the model has (4, 3, 3, 3), the weights (8, 3, 3, 3)" in said
    assert "  and 4 more that did not fit; the run's log.txt names all" in said
    log = (tmp_path / "new" / "log.txt").read_text(encoding="utf-8")
    assert log.count("did not fit: ") == 14
    assert "  did not fit: heads.two.linear.weight: the model has (2, 4), the weights (2, 8)" in log
    # Counters of batches fit any backbone; that does not make it the same one.
    assert "  normalisation: 0 of 3\n" in said


def test_a_file_of_weights_will_do(old: Path, tmp_path: Path) -> None:
    inside = old / "checkpoints" / "last" / "weights.safetensors"
    loose = Path(shutil.copy(inside, tmp_path / "loose.safetensors"))
    for file in (inside, loose):
        assert Start.open(str(file)).file == file
        _, loaded = start_model(assembled(start=file), restoring=False)
        assert loaded is not None
        assert len(loaded.sources) == 21
    assert list((Start.open(str(inside)).recipe or pytest.fail("no recipe")).tasks) == ["one", "two"]
    assert Start.open(str(loose)).recipe is None


def test_statistics_go_to_the_group_of_the_same_tasks(split: Path) -> None:
    theirs = weights(split)["sharing.backbone.stem.1.running_mean"]
    assert theirs.shape == (2, 8)
    assert not torch.equal(theirs[0], theirs[1])

    def statistics(tasks: dict[str, dict[str, Any]], start: Path = split) -> torch.Tensor:
        model, _ = start_model(assembled(tasks, start=start), restoring=False)
        return model.state_dict()["sharing.backbone.stem.1.running_mean"]

    # In another order, alone, one of them with another task, with one of a size of its own that is nearest to two's.
    assert torch.equal(statistics({"two": {"size": 64}, "one": {}}), theirs[[1, 0]])
    assert torch.equal(statistics({"two": {"size": 64}}), theirs[1])
    assert torch.equal(statistics({"new": {}, "one": {}, "two": {"size": 64}}), theirs)
    assert torch.equal(statistics({"new": {"size": 56}, "one": {}, "two": {"size": 64}}), theirs[[1, 0, 1]])
    # All of one size: no task can have its own, the first one's are as good as any.
    assert torch.equal(statistics({"one": {}, "two": {}}), theirs[0])


@pytest.fixture
def trapped(split: Path, tmp_path: Path) -> Path:
    """A run whose components leave a mark where they are imported, and some of which are not installed."""
    run = Path(shutil.copytree(split, tmp_path / "trapped"))
    for file in (run / "components").glob("*.py"):
        file.write_text(
            f"open({str(tmp_path / 'imported')!r}, 'w')\n" + file.read_text(encoding="utf-8"), encoding="utf-8"
        )
    recipe = run / "recipe.yaml"
    recipe.write_text(
        re.sub("(?m)^backbone: .*$", "backbone: nowhere", recipe.read_text(encoding="utf-8")), encoding="utf-8"
    )
    return run


@pytest.mark.parametrize("place", ["", "checkpoints/best/weights.safetensors"], ids=["run", "file"])
def test_nothing_of_the_old_run_is_imported(trapped: Path, tmp_path: Path, place: str) -> None:
    model, loaded = start_model(assembled({"two": {"size": 64}}, start=trapped / place), restoring=False)
    assert loaded is not None
    assert (loaded.missing, loaded.unfit) == ([], {})
    name = "sharing.backbone.stem.1.running_mean"
    assert torch.equal(model.state_dict()[name], weights(trapped)[name][1])
    assert not (tmp_path / "imported").exists()


def test_a_recipe_that_cannot_be_read_leaves_names_and_shapes(trapped: Path, tmp_path: Path) -> None:
    (trapped / "recipe.yaml").write_text("backbone: 1\nnothing: else\n", encoding="utf-8")
    file = trapped / "checkpoints" / "best" / "weights.safetensors"
    _, loaded = start_model(assembled({"one": {}, "two": {"size": 64}}, start=file), restoring=False)
    assert loaded is not None
    assert (loaded.missing, loaded.unfit, loaded.like) == ([], {}, {})
    assert not (tmp_path / "imported").exists()


def test_where_the_old_model_is_needed_its_recipe_is_blamed(trapped: Path) -> None:
    # Its files were changed; of what is installed, something is missing.
    recorded = json.loads((trapped / "environment.json").read_text(encoding="utf-8"))
    (trapped / "environment.json").write_text(json.dumps({**recorded, "files": {}}), encoding="utf-8")
    with pytest.raises(UntrustedError, match=r"^train\.start: .*trapped: .*has Python code of its own"):
        Start.open(str(trapped)).model()
    trust(trapped)
    with pytest.raises(RecipeError, match=r"^train\.start: .*trapped: backbone: no backbone 'nowhere"):
        Start.open(str(trapped)).model()


def test_sizes_that_vary_in_training_leave_their_groups(tmp_path: Path) -> None:
    varying = {"transform": {"name": f"{TOY}:ToyTransform", "fixed": False}}
    old = train_two(tmp_path / "old", two=varying)
    name = "sharing.backbone.stem.1.running_mean"
    theirs = weights(old)[name]
    assert theirs.shape == (2, 8)
    recipe = Recipe.from_plain(parse_yaml((old / "recipe.yaml").read_text(encoding="utf-8"), "old"), old, presets=False)
    train = recipe.train.model_copy(update={"start": str(old)})
    two = {"two": recipe.tasks["two"]}
    model, _ = start_model(Assembly(recipe.model_copy(update={"tasks": two, "train": train})), restoring=False)
    assert torch.equal(model.state_dict()[name], theirs[1])
    # By another transform nobody knows which are whose.
    _, loaded = start_model(assembled({"two": {}}, start=old), restoring=False)
    assert loaded is not None
    assert loaded.unfit[name] == ((8,), (2, 8))


def test_statistics_of_nobody_knows_which_tasks(old: Path, split: Path, tmp_path: Path) -> None:
    one = Path(shutil.copy(old / "checkpoints" / "best" / "weights.safetensors", tmp_path / "one.safetensors"))
    two = Path(shutil.copy(split / "checkpoints" / "best" / "weights.safetensors", tmp_path / "two.safetensors"))
    name = "sharing.backbone.stem.1.running_mean"
    model, _ = start_model(assembled({"a": {}, "b": {"size": 64}}, start=one), restoring=False)
    assert torch.equal(model.state_dict()[name], torch.stack([weights(old)[name]] * 2))
    model, _ = start_model(assembled({"a": {}, "b": {"size": 64}}, start=two), restoring=False)
    assert torch.equal(model.state_dict()[name], weights(split)[name])
    _, loaded = start_model(assembled({"a": {}}, start=two), restoring=False)
    assert loaded is not None
    assert loaded.unfit[name] == ((8,), (2, 8))


def test_pretrained_weights_are_fetched_only_where_something_is_left_to_them(
    old: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    built = []
    model = Assembly.model

    def watched(assembly: Assembly, *, restoring: bool = False, fresh: Sequence[str] = ()) -> Any:
        built.append((len(assembly.tasks), restoring, list(fresh)))
        return model(assembly, restoring=restoring, fresh=fresh)

    monkeypatch.setattr(Assembly, "model", watched)
    start_model(assembled(start=old), restoring=False)
    assert built == [(2, True, [])]
    built.clear()
    start_model(assembled(start=old, backbone={"name": f"{TOY}:ToyBackbone", "width": 4}), restoring=False)
    assert built == [(2, True, []), (2, True, ["sharing"])]


def test_another_backbone_keeps_its_own_normalisation(old: Path, tmp_path: Path) -> None:
    theirs = weights(old)
    file = tmp_path / "heads.safetensors"
    save_file({name: tensor for name, tensor in theirs.items() if not name.startswith("sharing.")}, file)
    theirs["mean"] += 1
    save_file(theirs, tmp_path / "other.safetensors")
    model, loaded = start_model(assembled(start=file), restoring=False)
    assert loaded is not None
    assert {"mean", "std", "_extra_state"} <= set(loaded.missing)
    model, _ = start_model(assembled(start=tmp_path / "other.safetensors"), restoring=False)
    assert torch.equal(model.mean, theirs["mean"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{recipe}", "--from", "{run}-not"], "train.start: {run}-not: no such run or file. Expected the folder of a"),
        (["{recipe}", "--from", "{recipe}"], "train.start: {recipe}: no run and no .safetensors file"),
        (["{recipe}", "--from", "{other}"], "train.start: nothing in {other} fits this model: of its 1 tensors none"),
        (["--resume", "{run}", "--from", "{run}"], "--resume RUN goes on with that run's own weights; --from begins"),
        (["{recipe}", "train.freeze=[heads.thre]"], "no part 'heads.thre'; did you mean 'heads.two'?"),
        (["{recipe}", "train.strat=x"], "train.strat: unknown option; did you mean 'start'?"),
    ],
)
def test_mistakes(old: Path, here: Path, arguments: list[str], message: str) -> None:
    other = here / "other.safetensors"
    save_file({"conv.weight": torch.zeros(3)}, other)
    known = {"run": old, "recipe": old.with_suffix(".yaml"), "other": other}
    result = mtframe("train", *(part.format(**known) for part in arguments))
    assert result.code == 2, result
    assert message.format(**known) in result.err
    assert list(here.iterdir()) == [other]


def test_damaged_weights_are_no_weights(old: Path, here: Path) -> None:
    (here / "broken.safetensors").write_bytes(b"nothing")
    result = mtframe("train", old.with_suffix(".yaml"), "--from", "broken.safetensors")
    assert (result.code, "broken.safetensors: cannot be read as safetensors" in result.err) == (1, True)


def test_what_a_model_started_from_is_outside_data(old: Path) -> None:
    sources = assembled({"one": {}}, start=old).outside("one")
    assert sources == (f"what the weights of {old} have learned from",)
