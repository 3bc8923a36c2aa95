"""Signatures as schemas."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import Field

from mtframe import options
from mtframe.errors import DataError, PluginError, RecipeError
from mtframe.options import OptionDoc

if TYPE_CHECKING:
    from mtframe.only_for_type_checkers import Features

WHERE = "tasks.objects.head"


class Head:
    """Sees things.

    Args:
        features: What it stands on.
        num_levels: How many levels
            of the pyramid: finest first.
        width, depth: Size of the towers.
        box (str): The box loss.

    Attributes:
        width: Not this text: the argument's comes first.
    """

    def __init__(
        self,
        features: Features,
        *,
        num_levels: int,
        width: int = 64,
        depth: int | None = None,
        box: Literal["iou", "a.b"] = "iou",
        margin: float = 0.3,
        file: Path | None = None,
        sizes: tuple[int, ...] = (8, 16),
        weights: dict[str, list[float]] | None = None,
        flip: bool = False,
        copy: int | str = 1,
        rate: Annotated[float, Field(ge=0, le=1)] = 0.5,
        schema=None,
    ) -> None:
        self.given = {name: value for name, value in locals().items() if name != "self"}


@dataclass
class Data:
    split: str
    _: KW_ONLY
    count: int = 3


def problems(**given: Any) -> list[str]:
    with pytest.raises(RecipeError) as error:
        options.check(Head, "head", given, WHERE)
    return str(error.value).splitlines()


def test_values_are_checked_and_converted() -> None:
    given = {
        "num_levels": 3,
        "margin": 1,
        "file": "a/b",
        "sizes": [1, 2],
        "weights": {"a": [1, 2.5]},
        "copy": "x",
    }
    checked = options.check(Head, "head", given, WHERE)
    assert checked == {
        "num_levels": 3,
        "margin": 1.0,
        "file": Path("a/b"),
        "sizes": (1, 2),
        "weights": {"a": [1.0, 2.5]},
        "copy": "x",
    }
    assert isinstance(checked["margin"], float)
    assert isinstance(checked["file"], Path)


def test_only_what_was_given_comes_back() -> None:
    assert options.check(Head, "head", {"num_levels": 3}, WHERE) == {"num_levels": 3}
    assert options.check(Head, "head", {"num_levels": 3, "depth": None}, WHERE) == {
        "num_levels": 3,
        "depth": None,
    }


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"width": "3"}, "width: expected a valid integer, got '3'"),
        ({"width": 3.5}, "width: expected a valid integer, got 3.5"),
        ({"width": True}, "width: expected a valid integer, got True"),
        ({"width": None}, "width: expected a valid integer, got None"),
        ({"margin": "0.3"}, "margin: expected a valid number, got '0.3'"),
        ({"margin": True}, "margin: expected a valid number, got True"),
        ({"flip": "yes"}, "flip: expected a valid boolean, got 'yes'"),
        ({"flip": 1}, "flip: expected a valid boolean, got 1"),
        ({"box": "diou"}, "box: expected 'iou' or 'a.b', got 'diou'"),
        ({"sizes": [1, "2"]}, "sizes.1: expected a valid integer, got '2'"),
        ({"weights": {"a": [1, None]}}, "weights.a.1: expected a valid number, got None"),
        ({"copy": [1]}, "copy: expected a valid integer or a valid string, got [1]"),
        ({"rate": 1.5}, "rate: expected less than or equal to 1, got 1.5"),
        ({"num_levles": 1}, "num_levles: unknown option; did you mean 'num_levels'?"),
    ],
)
def test_wrong_values_say_where_and_what(given: dict[str, Any], problem: str) -> None:
    assert problems(num_levels=3, **given) == [f"{WHERE}.{problem}"]


def test_all_problems_come_in_one_report() -> None:
    assert problems(num_levles=3, width="x", zzz=1) == [
        f"{WHERE}.num_levels: required",
        f"{WHERE}.width: expected a valid integer, got 'x'",
        f"{WHERE}.num_levles: unknown option; did you mean 'num_levels'?",
        f"{WHERE}.zzz: unknown option; there are: num_levels, width, depth, box, margin, file, sizes, "
        "weights, flip, copy, rate, schema",
    ]


def test_long_values_are_cut() -> None:
    (line,) = problems(num_levels="x" * 1000)
    assert len(line) < 200


def test_a_path_that_is_no_text_is_told() -> None:
    # As Python gives a word of the command line that the locale's encoding cannot explain.
    (line,) = problems(num_levels=3, file="h\udcf6he")
    assert line.startswith(f"{WHERE}: a name or path has bytes that are no text in this locale")


def test_component_without_options() -> None:
    class Plain:
        pass

    assert options.check(Plain, "head", {}, "x") == {}
    assert options.describe(Plain, "head") == []
    with pytest.raises(RecipeError, match=r"x\.width: unknown option$"):
        options.check(Plain, "head", {"width": 1}, "x")


def test_wired_parameters_stand_before_the_star() -> None:
    assert options.wired_names(Head, "head") == ("features",)

    class Wrong:
        def __init__(self, features: Any, width: int = 3) -> None: ...

    with pytest.raises(
        PluginError, match=r"Wrong: parameter 'width' .* can wire features, info, restoring; an option belongs after"
    ):
        options.wired_names(Wrong, "head")
    with pytest.raises(PluginError, match="parameter 'width'"):
        options.check(Wrong, "head", {}, "x")


def test_build_wires_only_what_is_asked_for() -> None:
    built = options.build(Head, "head", {"num_levels": 2}, {"features": "F", "info": "I"}, WHERE)
    assert built.given["features"] == "F"
    assert built.given["num_levels"] == 2
    assert built.given["sizes"] == (8, 16)


def test_refusal_by_the_constructor_is_located() -> None:
    class Picky:
        def __init__(self, *, margin: float = 0.1, error: str = "") -> None:
            if error:
                raise {"value": ValueError, "data": DataError, "type": TypeError}[error](f"margin: got {margin}")
            raise RecipeError("margins do not fit")

    with pytest.raises(RecipeError, match=r"^a\.loss: margins do not fit$"):
        options.build(Picky, "loss", {}, {}, "a.loss")
    with pytest.raises(RecipeError, match=r"^a.loss.margin: got 2.0$") as error:
        options.build(Picky, "loss", {"error": "value", "margin": 2}, {}, "a.loss")
    assert isinstance(error.value.__cause__, ValueError)
    with pytest.raises(DataError, match=r"^a.loss.margin: got 0.1$"):
        options.build(Picky, "loss", {"error": "data"}, {}, "a.loss")
    # Anything else is a bug of the plugin, told with its place in the recipe and in the code.
    message = r"^a\.loss: test_options:.*Picky raised TypeError: margin: got 0\.1 \(test_options\.py:\d+ in __init__\)$"
    with pytest.raises(PluginError, match=message) as bug:
        options.build(Picky, "loss", {"error": "type"}, {}, "a.loss")
    assert isinstance(bug.value.__cause__, TypeError)


def test_plain_functions_have_options_too() -> None:
    def synthesize(root: Path, *, seed: int = 0) -> tuple[Path, int]:
        return root, seed

    assert options.build(synthesize, ("root",), {"seed": 3}, {"root": Path("x")}, "data") == (Path("x"), 3)
    with pytest.raises(RecipeError, match=r"data\.sed: unknown option; did you mean 'seed'"):
        options.check(synthesize, ("root",), {"sed": 3}, "data")
    with pytest.raises(PluginError, match="can wire split"):
        options.wired_names(synthesize, ("split",))


def test_inherited_constructor_and_dataclass() -> None:
    class Child(Head):
        pass

    assert options.wired_names(Child, "head") == ("features",)
    assert options.describe(Child, "head")[0].name == "num_levels"
    assert options.check(Data, "dataset", {"count": 4}, "x") == {"count": 4}


def test_unreadable_annotation_names_the_component() -> None:
    class Odd:
        def __init__(self, *, width: NoSuchType = 3) -> None: ...  # type: ignore[name-defined] # noqa: F821

    with pytest.raises(PluginError, match=r"Odd: annotation of 'width' cannot be read: name 'NoSuchType'"):
        options.check(Odd, "head", {}, "x")


def test_describe_gives_types_defaults_and_docs() -> None:
    described = {option.name: option for option in options.describe(Head, "head")}
    assert described["num_levels"] == OptionDoc(
        "num_levels", "int", None, "How many levels of the pyramid: finest first."
    )
    assert described["width"] == OptionDoc("width", "int", "64", "Size of the towers.")
    assert described["depth"] == OptionDoc("depth", "int | None", "None", "Size of the towers.")
    assert described["box"] == OptionDoc("box", "Literal['iou', 'a.b']", "'iou'", "The box loss.")
    assert described["file"].type == "Path | None"
    assert described["weights"].type == "dict[str, list[float]] | None"
    assert described["schema"] == OptionDoc("schema", "any", "None", "")


NAMES = st.sampled_from(["width", "margin", "box", "copy", "weights", "schema"]) | st.text()
VALUES = st.recursive(st.none() | st.booleans() | st.floats() | st.integers() | st.text(), st.lists)


@settings(deadline=None, max_examples=30)
@given(st.dictionaries(NAMES, VALUES))
def test_whatever_comes_is_taken_or_refused_by_place(given: dict[str, Any]) -> None:
    try:
        checked = options.check(Head, "head", {"num_levels": 1, **given}, WHERE)
    except RecipeError as error:
        place = str(error)
    else:
        place = WHERE
        assert set(checked) == {"num_levels", *given}
    assert place.startswith(WHERE)


def test_suggestions_for_many_unknown_options_end(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(options, "did_you_mean", lambda word, _: asked.append(word) or "")
    with pytest.raises(RecipeError, match=r"unknown option; .*\nand 900 more$"):
        options.check(Head, "head", {"num_levels": 1, **{f"wdth{n}": 1 for n in range(1000)}}, WHERE)
    assert len(asked) == 100
