"""Names that are nearly those of a contract are told; names that are one's own are not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from command import mtframe
from fake_dist import make_dist
from mtframe._near_misses import known_names, near_misses
from mtframe.kinds import KINDS, members_of
from mtframe.testing import Kit, Violation
from mtframe_face.verification import FaceVerification

CONSTRUCTED = Path(__file__).parents[1] / "affinity" / "constructed.py"

CALLED = {"dataset": "a data set", "target": "a kind of target", "sharing": "a sharing scheme", "hooks": "an observer"}


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
        ("backbone", "sizes", "size"),
        ("metric", "ask", "asks"),
        ("balancer", "combined", "combine"),
        ("hooks", "step_end", "step_ended"),
        ("preset", "flip_tests", "flip_test"),
        ("metric", "migrates", "migrate"),
        ("loss", "example", "examples"),
    ],
)
def test_a_name_that_is_nearly_right_is_told_with_the_right_one(kind: str, name: str, meant: str) -> None:
    said = f"{name!r} is nearly {meant!r}, which the framework looks for in {CALLED.get(kind, f'a {kind}')}"
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


def test_what_a_metric_asks_a_data_set_for_is_known_by_its_protocols() -> None:
    asked = dict.fromkeys(FaceVerification.asks, "metric 'face-verification'")
    said = [*near_misses("dataset", Faces, Faces, asked)]
    assert said == [
        "'peoples' is nearly 'people', which metric 'face-verification' looks for in a data set",
        "'pair' is nearly 'pairs', which metric 'face-verification' looks for in a data set",
    ]
    assert described("dataset", Faces()) == []


class Faces:
    """A stranger's data set."""

    peoples = ("ada", "grace")
    pair = None
    photographed = ()


def test_a_data_set_in_the_kit_is_held_to_them_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(make_dist(tmp_path, "strangers-faces", ENTRY, {"strangers_faces": DATA}))
    (case,) = [case for case in Kit("strangers-faces").cases() if case.check.name == "near-misses"]
    with pytest.raises(Violation) as caught:
        case.run()
    # All of them, in one message.
    assert str(caught.value) == (
        "'peoples' is nearly 'people', which metric 'face-verification' looks for in a data set; "
        "'decode_sizes' is nearly 'decode_size', which the framework looks for in a data set"
    )


ENTRY = {"mtframe.dataset": {"strangers-faces": "strangers_faces:Faces"}}
DATA = '''
class Faces:
    """Faces."""

    target = "identity"
    splits = ("train",)
    peoples = ("ada",)
    decode_sizes = None

    def __init__(self, split):
        pass
'''


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


LOCAL = '''
class Quiet:
    """Sees nothing."""

    def step_end(self, step):
        pass

    def run_begin(self):
        pass

    def training_start(self):
        pass
'''


def test_a_part_in_a_file_is_told_where_it_is_shown_and_where_it_is_trained_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "quiet.py").write_text(LOCAL, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    shown = mtframe("plugins", "show", "hooks", "./quiet.py:Quiet")
    assert shown.code == 0
    ended = "'step_end' is nearly 'step_ended', which the framework looks for in an observer"
    started = "'training_start' is nearly 'training_started', which the framework looks for in an observer"
    assert f"Near misses:\n  {ended}\n  {started}\n" in shown.out
    (tmp_path / "constructed.yaml").write_text(
        CONSTRUCTED.with_suffix(".yaml").read_text(encoding="utf-8"), encoding="utf-8"
    )
    (tmp_path / "constructed.py").write_text(CONSTRUCTED.read_text(encoding="utf-8"), encoding="utf-8")
    arguments = "train.steps=1", "train.evaluate_every=null", "train.device=cpu", "--out", tmp_path / "run"
    trained = mtframe("train", "constructed.yaml", *arguments, "--with", "./quiet.py:Quiet")
    assert trained.code == 2, trained
    assert "quiet.py:Quiet): cannot observe: none of its methods is marked with @hookimpl" in trained.err
    name = f"hooks.1: {tmp_path}/quiet.py:Quiet"
    assert [line for line in trained.err.splitlines() if line.startswith("note: ")] == [
        f"note: {name}: {ended}", f"note: {name}: {started}",
    ]  # fmt: skip
