"""Checks of components of every kind."""

from __future__ import annotations

import contextlib
import inspect
import json
from typing import TYPE_CHECKING

from mtframe import options
from mtframe._near_misses import near_misses as _near_misses
from mtframe.errors import PluginError, RecipeError
from mtframe.yaml import dump_yaml, parse_yaml

from ._check import checks
from ._violation import Skip, expect

if TYPE_CHECKING:
    from ._subject import Subject

# No component has an option of this name.
_UNKNOWN = "no_such_option"


def imports_silently(subject: Subject) -> None:
    """Its import prints, warns and connects to nothing, and leaves seeds, torch's settings and the process alone."""
    component = subject.component
    expect(not component.broken, f"it cannot be used: {component.broken}")
    found = subject.kit.probe(component)
    trace = f"\n{found.traceback}" if found.traceback else ""
    expect(not found.problems, f"importing {found.value} {'; '.join(found.problems)}{trace}")


def summary(subject: Subject) -> None:
    """Its docstring begins with a line that says what it is."""
    # Its own: inspect.getdoc would take that of a base class such as nn.Module.
    text = inspect.cleandoc(subject.cls.__doc__ or "")
    expect(
        text.partition("\n")[0].strip(), f"{subject.cls.__qualname__} has no docstring, which listings and help show"
    )


def signature(subject: Subject) -> None:
    """What is wired it asks for by names of its kind, and every option has an annotation that can be read."""
    options.schema(subject.cls, subject.kind)
    bare = [
        parameter.name
        for parameter in inspect.signature(subject.cls).parameters.values()
        if parameter.kind is parameter.KEYWORD_ONLY and parameter.annotation is parameter.empty
    ]
    expect(not bare, f"option {', '.join(bare)} has no annotation, so that anything would be taken for it")


def refuses_unknown_options(subject: Subject) -> None:
    """An option that it does not have is an error, from a recipe and from Python."""
    _check_schema(subject)
    try:
        options.check(subject.cls, subject.kind, {_UNKNOWN: 1}, str(subject))
    except RecipeError as error:
        expect(_UNKNOWN in str(error), f"the error does not name the option: {error}")
    else:
        expect(False, f"a recipe may write {_UNKNOWN}: 1")
    caught = [p.name for p in inspect.signature(subject.cls).parameters.values() if p.kind is p.VAR_KEYWORD]
    # nn.Module's own constructor has **kwargs, and refuses them.
    inherited = getattr(subject.cls.__init__, "__module__", "").startswith("torch.")
    expect(inherited or not caught, f"**{''.join(caught)} takes any misspelt option without a word")


def options_round_trip(subject: Subject) -> None:
    """The defaults of its options, written to a recipe and read again, are the same values."""
    _check_schema(subject)
    parameters = inspect.signature(subject.cls).parameters.values()
    defaults = {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY and p.default is not p.empty}
    plain = json.loads(json.dumps(defaults, default=str))
    given = dict.fromkeys(subject.required)
    read = parse_yaml(dump_yaml(plain), str(subject)) if plain else {}
    for name, default in defaults.items():
        try:
            checked = options.check(subject.cls, subject.kind, {**given, name: read[name]}, str(subject))
            value = checked[name]
        except RecipeError as error:
            # Those that are required are not asked about here.
            about = [line for line in str(error).splitlines() if line.startswith(f"{subject}.{name}")]
            expect(not about, f"the default {default!r} is refused where a recipe writes it: {'; '.join(about)}")
            continue
        # NaN is not equal to itself.
        same = value == default or (value != value and default != default)
        expect(same, f"option {name}: the default {default!r} comes back from a recipe as {value!r}")


def near_misses(subject: Subject) -> None:
    """No member's name is nearly one that its kind has or may have, and no optional ability is there by half."""
    _check_schema(subject)
    with contextlib.suppress(Skip):
        subject.kit.sound(subject)
    # All of them: whoever has misread one name has often misread others.
    asked = subject.kit.asked_of(subject)
    problems = list(_near_misses(subject.kind, subject.cls, subject.part or subject.cls, asked))
    expect(not problems, "; ".join(problems))


def builds(subject: Subject) -> None:
    """It is built as a recipe builds it, and has what its kind gives."""
    _check_schema(subject)
    subject.kit.make(subject)


def _check_schema(subject: Subject) -> None:
    try:
        options.schema(subject.cls, subject.kind)
    except PluginError as error:
        raise Skip("its signature cannot be used; see the check signature") from error


CHECKS = checks(
    imports_silently,
    summary,
    signature,
    refuses_unknown_options,
    options_round_trip,
    near_misses,
    builds,
    early=True,
)
