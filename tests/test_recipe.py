"""Strict YAML, overrides, presets, and one report of all that is wrong."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fake_dist import make_kit
from mtframe import registry
from mtframe.errors import PluginError, RecipeError
from mtframe.recipe import Choice, Recipe, TrainOptions, apply_overrides, assemble_recipe, load_recipe
from mtframe.yaml import dump_yaml, parse_yaml

KITE = """
backbone: {name: kitenet/small, pretrained: true}
sharing: whole
balancer: total
tasks:
  kites:
    preset: kite-watching
    dataset: {root: data/kites}
train: {epochs: 3}
"""


@pytest.fixture(autouse=True)
def kit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Components of every kind, without torch."""
    folder = tmp_path / "site"
    monkeypatch.syspath_prepend(make_kit(folder))
    registry.installed.cache_clear()
    yield
    registry.installed.cache_clear()
    sys.modules.pop("kitekit", None)


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def plain_recipe(**task: Any) -> dict[str, Any]:
    plain = parse_yaml(KITE, "kite")
    plain["tasks"]["kites"].update(task)
    return plain


def report(plain: dict[str, Any]) -> list[str]:
    with pytest.raises(RecipeError) as error:
        Recipe.from_plain(plain)
    return str(error.value).splitlines()


# YAML


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001), ("1E5", 1e5), ("1.", 1.0), (".5", 0.5), ("-.inf", -math.inf), ("3", 3), ("-0", 0),
        ("010", 10), ("0x1f", 31), ("0o17", 15), ("no", "no"), ("yes", "yes"), ("on", "on"), ("Off", "Off"),
        ("y", "y"), ("true", True), ("FALSE", False), ("null", None), ("~", None), ("", None),
        ("none", "none"),
        ("1:30", "1:30"), ("2024-01-02", "2024-01-02"), ("1_000", "1_000"), ("1e", "1e"), ("=", "="),
        ("<<", "<<"),
        ("'1'", "1"), ("./heads.py:MyHead", "./heads.py:MyHead"), ("[1, 1e-3, no]", [1, 0.001, "no"]),
    ],
)  # fmt: skip
def test_scalars_are_those_of_yaml_1_2(text: str, value: Any) -> None:
    parsed = parse_yaml(text, "test")
    assert parsed == value
    assert type(parsed) is type(value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: 1\nb: 2\na: 3", "test, line 3: duplicate key 'a', already given in line 1"),
        ("a: {b: 1, b: 2}", "test: duplicate key 'b', already given in line 1"),
        ("a: &x [1]\nb: *x", r"test, line 2: aliases are not supported: \*x"),
        ("a: [1,\nb: }", "test, line 2: while parsing"),
        ("a: !!python/object:os.system x", "test: tags are not supported: !!python/object:os.system"),
        ("a: !!bool x", "test: tags are not supported: !!bool"),
        ("!!float ''", "test: tags are not supported: !!float"),
        ("- !!timestamp x", "test: tags are not supported: !!timestamp"),
        ("!mine {a: 1}", "test: tags are not supported: !mine"),
        ("a: " + "9" * 5000, "test: a number of 5000 digits"),
        ("a: 0x" + "f" * 5000, "test: a number of 5002 digits"),
        ("{" * 1000000, "nested too deep|maximum nesting depth"),
        (
            f"a: 1\n{2**61 - 1}: 1",
            "test, line 2: a number is a key only up to 2 to the power of 60, got 230",
        ),
        (f"{{-{2**61 - 1}: 1}}", "test: a number is a key only up to 2 to the power of 60, got -230584300921369"),
        ("? [a]\n: 1", "test, line 1: expected a key of text"),
        ("a: 1\n---\nb: 1", "test, line 2: expected a single document"),
        ("\x00", "test: unacceptable character"),
        ("[" * 1000, "test: nested too deep"),
        ("[" * 1000000 + "\n%", "nested too deep|maximum nesting depth"),
        ("# x\n%TAG !a! tag:b\n---\na: 1", "test, line 2: directives are not supported: %TAG"),
        ("a: 1\n%TAG !a! tag:b\n---\n", "test, line 2: directives are not supported: %TAG"),
        ("a: 1\n...\n%TAG !a! tag:b\n---\n", "test, line 3: directives are not supported: %TAG"),
        ("\ufeff%TAG !a! tag:b\n---\n", "directives are not supported: %TAG"),
        ("%YAML 1.1\n%YAML 1.1\n---\n", "test, line 2: found duplicate %YAML directive"),
    ],
)
def test_bad_yaml_is_named_with_its_line(text: str, said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        parse_yaml(text, "test")


@pytest.mark.timeout(20)
def test_many_directives_end() -> None:
    text = "".join(f"%TAG !a{number}! tag:b\n" for number in range(100_000))
    with pytest.raises(RecipeError, match="test, line 1: directives are not supported: %TAG"):
        parse_yaml(f"{text}---\na: 1", "test")


def test_a_percent_sign_is_no_directive() -> None:
    assert parse_yaml("%YAML 1.1\n---\na: 'x\n%TAG y'\nb: 5%\n", "test") == {"a": "x %TAG y", "b": "5%"}


TEXT = st.text(st.characters(exclude_categories=["Cs"]))
SCALAR = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXT
VALUE = st.recursive(SCALAR, lambda inner: st.lists(inner) | st.dictionaries(TEXT, inner), max_leaves=12)


@settings(deadline=None)
@given(VALUE, st.booleans())
@example(["1e-3", "no", "010", "1:30", "0o17", "", "2024-01-02", "<<", "=", "a\x85 b", "\u2028"], True)
def test_yaml_round_trip(value: Any, flow: bool) -> None:
    text = dump_yaml(value, flow=flow)
    assert parse_yaml(text, "test") == value
    # Whoever reads it with another YAML library reads no text as something else.
    shared = [leaf for leaf in _leaves(value) if isinstance(leaf, str)]
    assert shared == [leaf for leaf in _leaves(yaml.safe_load(text)) if isinstance(leaf, str)]


def _leaves(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [leaf for key in value for leaf in (key, *_leaves(value[key]))]
    return [leaf for item in value for leaf in _leaves(item)] if isinstance(value, list) else [value]


# Overrides


def test_overrides() -> None:
    plain = {"backbone": "a", "tasks": {"t": {"head": "dense", "metrics": ["x", {"name": "y", "folds": 2}]}}}
    changed = apply_overrides(
        plain,
        [
            "backbone=timm/x",
            "train.epochs=5",
            "train.lr=1e-3",
            "tasks.t.head.width=64",
            "tasks.t.loss.margin=0.3",
            "tasks.t.loss.note=a=b: c",
            "tasks.t.metrics.1.folds=7",
            "tasks.t.metrics.0.k=null",
            "tasks.t.dataset={name: coco, root: x y}",
        ],
    )
    assert changed == {
        "backbone": "timm/x",
        "train": {"epochs": 5, "lr": 0.001},
        "tasks": {
            "t": {
                "head": {"name": "dense", "width": 64},
                "loss": {"margin": 0.3, "note": {"a=b": "c"}},
                "metrics": [{"name": "x", "k": None}, {"name": "y", "folds": 7}],
                "dataset": {"name": "coco", "root": "x y"},
            }
        },
    }
    assert plain["backbone"] == "a"
    assert plain["tasks"]["t"]["head"] == "dense"


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("train.epochs", "override 'train.epochs': expected key=value, as in train.epochs=5"),
        ("=3", "expected key=value"),
        ("train..epochs=3", "expected key=value"),
        ("tasks.kitse.size=3", "override 'tasks.kitse.size=3': no task 'kitse'; did you mean 'kites'"),
        ("tasks.x.size=3", "no task 'x'; the tasks are kites"),
        ("train.epochs.x=3", "train.epochs is 3 and has no 'x'"),
        ("train.lr=[1", "override 'train.lr=\\[1': while parsing"),
    ],
)
def test_bad_overrides_are_named(override: str, said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        apply_overrides(plain_recipe(), [override])


@pytest.mark.parametrize(
    ("overrides", "epochs", "steps"),
    [
        (["train.epochs=2"], 2, None),
        (["train.lr=1"], 3, 4),
        (["train.epochs=2", "train.steps=5"], 2, 5),
        (["train.steps=5", "train.epochs=2"], 2, 5),
        (["train={steps: 5}", "train.epochs=2"], 2, 5),
    ],
)
def test_epochs_that_are_asked_for_are_not_shadowed_by_the_steps_of_the_file(
    tmp_path: Path, overrides: list[str], epochs: int, steps: int | None
) -> None:
    train = load_recipe(written(tmp_path, KITE.replace("epochs: 3", "epochs: 3, steps: 4")), overrides).train
    assert (train.epochs, train.steps) == (epochs, steps)


def test_a_file_that_has_both_epochs_and_steps_trains_the_steps(tmp_path: Path) -> None:
    assert load_recipe(written(tmp_path, KITE.replace("epochs: 3", "epochs: 3, steps: 4"))).train.steps == 4


def test_override_of_an_unknown_key_is_suggested(tmp_path: Path) -> None:
    path = written(tmp_path, KITE)
    with pytest.raises(RecipeError) as error:
        load_recipe(path, ["train.epohs=5", "tasks.kites.haed=x", "tran.epochs=3"])
    assert str(error.value).splitlines() == [
        f"{path}:",
        "tasks.kites.haed: unknown option; did you mean 'head'?",
        "train.epohs: unknown option; did you mean 'epochs'?",
        "tran: unknown option; did you mean 'train'?",
    ]


KEY = st.text("abcdefgh", min_size=1, max_size=3)


@settings(deadline=None)
@given(st.lists(KEY, min_size=1, max_size=4), VALUE)
def test_an_override_sets_what_it_says_and_nothing_else(path: list[str], value: Any) -> None:
    plain = {"other": {"x": 1}}
    text = dump_yaml(value) if not isinstance(value, dict | list) else yaml.safe_dump(value, default_flow_style=True)
    node = changed = apply_overrides(plain, [f"{'.'.join(path)}={text}"])
    for part in path:
        node = node[part]
    assert node == value or isinstance(value, dict | list)
    assert changed["other"] == {"x": 1}


# Recipes


def test_preset_fills_what_is_left_out(tmp_path: Path) -> None:
    recipe = load_recipe(written(tmp_path, KITE))
    task = recipe.tasks["kites"]
    assert recipe.backbone == Choice(name="kitenet/small", options={"pretrained": True})
    assert task.dataset == Choice(name="kites", options={"root": "data/kites"})
    assert task.transform == Choice(name="crop", options={"flip": True})
    assert task.head == Choice(name="kite-head", options={"width": 64})
    assert task.loss == Choice(name="kite-loss")
    assert task.metrics == [Choice(name="kite-score")]
    assert (task.size, task.batch_size, task.flip_test) == (96, 8, True)
    assert recipe.train == TrainOptions(epochs=3)
    assert recipe.base == tmp_path


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        ("kite-head", {"name": "kite-head", "width": 64}),
        ({"num_levels": 2}, {"name": "kite-head", "width": 64, "num_levels": 2}),
        ({"name": "kite-head", "width": 8}, {"name": "kite-head", "width": 8}),
        ("shark-head", "shark-head"),
        ({"name": "shark-head", "num_levels": 2}, {"name": "shark-head", "num_levels": 2}),
    ],
)
def test_another_component_drops_the_presets_options(head: Any, expected: Any) -> None:
    recipe = Recipe.from_plain(plain_recipe(head=head))
    assert recipe.tasks["kites"].head.plain() == expected


def test_one_metric_needs_no_list() -> None:
    for metric in ("kite-score", {"name": "kite-score", "folds": 3}):
        assert Recipe.from_plain(plain_recipe(metrics=metric)) == Recipe.from_plain(plain_recipe(metrics=[metric]))


def test_options_of_parts_that_no_recipe_names_can_be_set(tmp_path: Path) -> None:
    overrides = ["balancer.weights.kites=2.0", "sharing.batchnorm=shared"]
    unnamed = KITE.replace("sharing: whole\nbalancer: total\n", "")
    recipe = load_recipe(written(tmp_path, unnamed), overrides)
    assert recipe.balancer == Choice(name="sum", options={"weights": {"kites": 2.0}})
    assert recipe.sharing == Choice(name="network", options={"batchnorm": "shared"})


@pytest.mark.parametrize(("change", "said"), [
    ({"size": 1}, "tasks.kites.size: expected greater than or equal to 16, got 1"),
    ({"size": 100_000}, "tasks.kites.size: expected less than or equal to 16384, got 100000"),
    ({"metrics": []}, "tasks.kites.metrics: expected at least 1, got 0"),
    ({"metrics": 5}, "tasks.kites.metrics: expected a list, got 5"),
])  # fmt: skip
def test_wrong_values_are_told_in_words_of_yaml(change: dict[str, Any], said: str) -> None:
    with pytest.raises(RecipeError) as error:
        Recipe.from_plain(plain_recipe(**change))
    assert str(error.value) == said


@pytest.mark.parametrize("key", ["train", "tasks"])
def test_a_value_in_place_of_a_mapping(key: str) -> None:
    with pytest.raises(RecipeError, match=f"{key}: expected a mapping, got 5"):
        Recipe.from_plain({**plain_recipe(), key: 5})


def test_presets_are_not_changed_by_recipes() -> None:
    first = Recipe.from_plain(plain_recipe())
    first.tasks["kites"].head.options["width"] = 1
    assert Recipe.from_plain(plain_recipe()).tasks["kites"].head.options == {"width": 64}


def test_everything_wrong_comes_in_one_report() -> None:
    plain = plain_recipe(size="96", batch_size=0, flip_test="yes", hed="x", loss=3, transform={1: 2})
    plain["train"] = {"epochs": 0, "precision": "fp16", "lr": "fast", "ema": 1.0}
    plain["tasks"]["2nd task"] = {"preset": "kite-watching"}
    del plain["backbone"]
    assert report(plain) == [
        "backbone: required",
        "tasks.kites.transform: expected names of options, got 1",
        "tasks.kites.loss: expected a name, or a mapping with 'name' and options, got 3",
        "tasks.kites.size: expected a valid integer, got '96'",
        "tasks.kites.batch_size: expected greater than or equal to 1, got 0",
        "tasks.kites.flip_test: expected a valid boolean, got 'yes'",
        "tasks.kites.hed: unknown option; did you mean 'head'?",
        "tasks.2nd task: expected a task's name of letters, digits, '_' and '-', beginning with a letter",
        "train.epochs: expected greater than or equal to 1, got 0",
        "train.lr: expected a valid number, got 'fast'",
        "train.ema: expected less than 1, got 1.0",
        "train.precision: expected 'auto', 'bf16' or 'fp32', got 'fp16'",
    ]


def test_unknown_preset_is_suggested_and_what_it_would_fill_is_not_reported() -> None:
    plain = plain_recipe(preset="kite-wathcing", size=3.5)
    lines = report(plain)
    assert lines[0] == "tasks.kites.preset: no preset 'kite-wathcing'; did you mean 'kite-watching'?"
    assert lines[-1] == "tasks.kites.size: expected a valid integer, got 3.5"
    assert not [line for line in lines if "required" in line]


def test_without_a_preset_everything_is_required() -> None:
    plain = plain_recipe()
    del plain["tasks"]["kites"]["preset"]
    lines = report(plain)
    assert lines[0] == "tasks.kites.dataset.name: required (or name a preset: tasks.kites.preset)"
    assert "tasks.kites.head: required (or name a preset: tasks.kites.preset)" in lines


@pytest.mark.parametrize(("tasks", "said"), [({}, "tasks: "), ([1], "tasks: expected"), (None, "tasks: expected")])
def test_no_tasks(tasks: Any, said: str) -> None:
    (line,) = report({"backbone": "x", "tasks": tasks})
    assert line.startswith(said)


def test_base_cannot_be_written_in_a_recipe() -> None:
    assert report({**plain_recipe(), "base": "/"}) == ["base: unknown option"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "cannot read the recipe: No such file"),
        (b"", "expected keys such as 'backbone' and 'tasks', got nothing"),
        (b"- a", r"expected keys such as 'backbone' and 'tasks', got \['a'\]"),
        (b"\xff\xfe\x00", "not a text file in UTF-8"),
        (b"a: 1\na: 2", "recipe.yaml, line 2: duplicate key 'a'"),
    ],
)
def test_unreadable_files_are_named(tmp_path: Path, content: bytes | None, said: str) -> None:
    path = tmp_path / "recipe.yaml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(RecipeError, match=said) as error:
        load_recipe(path)
    assert str(error.value).startswith(str(path))
    with pytest.raises(RecipeError, match="Is a directory"):
        load_recipe(tmp_path)


def test_recipe_round_trips_through_yaml(tmp_path: Path) -> None:
    overrides = ["train.steps=7", "train.clip_grad=null", "tasks.kites.loss.note='1e-3'", "train.lr=3e-4"]
    recipe = load_recipe(written(tmp_path, KITE), overrides)
    again = load_recipe(written(tmp_path, recipe.to_yaml()))
    assert again == recipe
    assert again.train.steps == 7
    assert again.tasks["kites"].loss.options == {"note": "1e-3"}


@settings(deadline=None, max_examples=30)
@given(
    st.dictionaries(
        st.from_regex(r"[A-Za-z][A-Za-z0-9_-]{0,8}", fullmatch=True),
        st.dictionaries(TEXT.filter(lambda key: key != "name"), VALUE, max_size=4),
        min_size=1,
        max_size=3,
    )
)
def test_any_options_round_trip(tasks: dict[str, dict[str, Any]]) -> None:
    part = {"dataset": "d", "transform": "t", "loss": "l", "metrics": ["m"], "size": 32, "batch_size": 1}
    plain = {
        "backbone": "b",
        "tasks": {name: {**part, "head": {"name": "h", **given}} for name, given in tasks.items()},
    }
    recipe = Recipe.from_plain(plain)
    assert {name: task.head.options for name, task in recipe.tasks.items()} == tasks
    assert Recipe.from_plain(parse_yaml(recipe.to_yaml(), "test")) == recipe


def test_components_in_files_stay_found_from_another_folder(tmp_path: Path) -> None:
    (tmp_path / "heads.py").write_text(
        "class Mine:\n    def __init__(self, *, width: int = 3): pass\n", encoding="utf-8"
    )
    path = written(tmp_path, KITE.replace("dataset:", "head: {name: './heads.py:Mine', width: 2}\n    dataset:"))
    recipe = load_recipe(path)
    assert recipe.tasks["kites"].head == Choice(name=f"{tmp_path.as_posix()}/heads.py:Mine", options={"width": 2})
    moved = tmp_path / "runs" / "recipe.yaml"
    moved.parent.mkdir()
    moved.write_text(recipe.to_yaml(), encoding="utf-8")
    found = load_recipe(moved).check().parts
    assert found["tasks.kites.head"].resolved.origin.file == tmp_path / "heads.py"


# Assembling on the spot


def test_assembled_recipe_is_the_written_one() -> None:
    recipe = assemble_recipe(
        "kitenet/small",
        ["kites=kite-watching:data/kites"],
        ["backbone.pretrained=true", "sharing=whole", "balancer=total", "train.epochs=3"],
    )
    assert recipe == Recipe.from_plain(parse_yaml(KITE, "kite"))


def test_root_may_hold_colons_and_a_preset_may_be_a_file(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("from kitekit import Preset\n", encoding="utf-8")
    recipe = assemble_recipe("b", ["a=kite-watching:C:/x:y=z", f"b={tmp_path}/mine.py:Preset:data/b"])
    assert recipe.tasks["a"].dataset.options == {"root": "C:/x:y=z"}
    assert recipe.tasks["b"].dataset.options == {"root": "data/b"}


def test_default_roots() -> None:
    recipe = assemble_recipe("b", ["a=kite-watching", "b=kite-watching:x"], data="data")
    assert [task.dataset.options["root"] for task in recipe.tasks.values()] == ["data/kites", "x"]


@pytest.mark.parametrize("spec", ["kites", "=x", "kites=", "kites=:root", "kites=p:"])
def test_bad_task_on_the_command_line(spec: str) -> None:
    with pytest.raises(RecipeError, match="expected NAME=PRESET:ROOT, as in faces=face-recognition:data/lfw"):
        assemble_recipe("b", [spec])


def test_task_given_twice() -> None:
    with pytest.raises(RecipeError, match="task 'a' is given twice"):
        assemble_recipe("b", ["a=kite-watching", "a=kite-watching"])


# Checking


def test_check_resolves_every_part() -> None:
    found = Recipe.from_plain(plain_recipe()).check().parts
    assert list(found) == [
        "backbone",
        "sharing",
        "balancer",
        "train.schedule",
        "tasks.kites.dataset",
        "tasks.kites.transform",
        "tasks.kites.head",
        "tasks.kites.loss",
        "tasks.kites.metrics.0",
        "hooks.0",
    ]
    assert found["backbone"].resolved.member == "small"
    built_in = ("hooks.0", "train.schedule")
    assert {str(found[place].resolved.origin) for place in found if place not in built_in} == {"kite-kit 1.2.3"}


def test_check_reports_every_problem() -> None:
    plain = plain_recipe(
        dataset={"people": 3},
        head={"num_levles": 4},
        loss="kite-los",
        metrics=[{"name": "kite-score", "folds": "x"}],
    )
    plain["backbone"] = "kitenet"
    with pytest.raises(RecipeError) as error:
        Recipe.from_plain(plain).check()
    assert [line for line in str(error.value).splitlines() if not line.startswith("See what")] == [
        "backbone: 'kitenet' is a family; name a member of it, as in 'kitenet/MEMBER'",
        "tasks.kites.dataset.root: required. Name its folder, as in -t NAME=PRESET:ROOT or "
        "tasks.kites.dataset.root=ROOT. "
        "Make some with: mtframe data synthesize kites data/kites",
        "tasks.kites.dataset.people: expected a valid string, got 3",
        "tasks.kites.head.num_levles: unknown option; did you mean 'num_levels'?",
        "tasks.kites.loss: no loss 'kite-los'; did you mean 'kite-loss'?",
        "tasks.kites.metrics.0.folds: expected a valid integer, got 'x'",
    ]


def test_families_know_their_members() -> None:
    Recipe.from_plain({**plain_recipe(), "backbone": "kitenet/unlisted"}).check()
    with pytest.raises(RecipeError, match=r"^backbone: kitenet has no member 'sm'$"):
        Recipe.from_plain({**plain_recipe(), "backbone": "kitenet/sm"}).check()
    with pytest.raises(RecipeError, match=r"^backbone: kitenet has no member 's\*'$"):
        Recipe.from_plain({**plain_recipe(), "backbone": "kitenet/s*"}).check()


def test_parts_that_do_not_fit_name_both_sides_and_what_would_fit() -> None:
    with pytest.raises(RecipeError) as error:
        Recipe.from_plain(plain_recipe(head="shark-head")).check()
    assert str(error.value) == (
        "tasks.kites.head: head 'shark-head' works on targets of kind 'sharks', but the data set 'kites' "
        "gives 'kites'; a head that fits: kite-head"
    )


def test_broken_component_keeps_its_cause_in_the_message(tmp_path: Path) -> None:
    (tmp_path / "bad.py").write_text("import no_such_thing", encoding="utf-8")
    with pytest.raises(RecipeError, match=r"tasks\.kites\.head: .*No module named 'no_such_thing'"):
        Recipe.from_plain(plain_recipe(head="./bad.py:Head"), tmp_path).check()
    with pytest.raises(PluginError, match="No module named 'no_such_thing'"):
        registry.resolve("head", "./bad.py:Head", tmp_path)


def test_recipe_cannot_be_changed() -> None:
    recipe = Recipe.from_plain(plain_recipe())
    with pytest.raises(ValueError, match="frozen"):
        recipe.train.epochs = 5  # type: ignore[misc]
