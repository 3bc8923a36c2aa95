"""Names that are nearly those of a contract are told; names that are one's own are not."""

from __future__ import annotations

from typing import Any

import pytest

from mtframe.kinds import KINDS, members_of
from mtframe.testing._names import known_names, near_misses


def part(*methods: str, **values: Any) -> Any:
    """A component with these methods and attributes, on the class and on the instance."""
    cls = type("Part", (), {name: lambda self: None for name in methods})
    made = cls()
    vars(made).update(values)
    return made


def described(kind: str, made: Any) -> list[str]:
    return list(near_misses(kind, type(made), made))


@pytest.mark.parametrize(
    ("kind", "name", "meant"),
    [
        ("head", "merge_view", "merge_views"),
        ("head", "mergeViews", "merge_views"),
        ("loss", "set_progres", "set_progress"),
        ("dataset", "targetof", "target_of"),
        ("dataset", "decode_sizes", "decode_size"),
        ("target", "lable_marks", "label_marks"),
        ("target", "check_predictions", "check_prediction"),
        ("transform", "fix_size", "fixed_size"),
        ("metric", "detail", "details"),
        ("sharing", "share_parameters", "shared_parameters"),
        ("backbone", "pre_training", "pretraining"),
        ("balancer", "combined", "combine"),
        ("hooks", "step_end", "step_ended"),
        ("preset", "flip_tests", "flip_test"),
        ("metric", "migrates", "migrate"),
        ("loss", "example", "examples"),
    ],
)
def test_a_name_that_is_nearly_right_is_told_with_the_right_one(kind: str, name: str, meant: str) -> None:
    said = f"{name!r} is nearly {meant!r}, which is what the framework asks a {kind} for"
    assert said in described(kind, part(name))
    assert said in described(kind, part(**{name: 1}))


def test_names_of_ones_own_are_left_alone() -> None:
    assert described("head", part("classify", "embed", "levels", scale=1, features=())) == []
    assert described("dataset", part("read", "download_all", annotations=None, classes=())) == []
    # The right name is there too: the other one is another thing.
    assert described("head", part("merge_views", "merge_view", "predict", target="label")) == []
    # What is private is nobody's business.
    assert described("head", part("_merge_view")) == []


def test_an_option_that_is_kept_is_no_near_miss() -> None:
    class Data:
        def __init__(self, split: str) -> None:
            self.split = split

    assert described("dataset", Data("train")) == []


def test_half_of_an_ability_is_told() -> None:
    assert described("dataset", part("target_of")) == ["it has target_of and not ids: LabelsImages takes both"]
    assert described("dataset", part("target_of", "ids")) == []
    said = "it has check_label and not check_prediction: ChecksForm takes both"
    assert said in described("target", part("check_label"))


def test_every_name_that_is_asked_for_is_known_once() -> None:
    for kind in KINDS:
        names = known_names(kind)
        assert len(set(names)) == len(names)
        assert ({"migrate", "examples"} <= set(names)) == (kind not in ("target", "preset")), kind
    assert {"target_of", "ids", "order", "decode_size", "notes", "download", "synthesize"} <= set(
        known_names("dataset")
    )
    assert {"step_ended", "training_ended"} <= set(known_names("hooks"))


def test_what_a_kind_gives_is_in_its_protocols() -> None:
    """Names of contracts are written in the protocols; `gives` of the table does not go beyond them."""
    for name, kind in KINDS.items():
        given = {one for names in kind.gives for one in names.split(" or ") if not one.startswith("_")}
        assert given <= {member for protocol in kind.contracts for member in members_of(protocol)}, name
