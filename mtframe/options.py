"""A component's signature is its schema.

Parameters before `*` are wired by the framework, by name; those after it are the recipe's options, checked
against their annotations. The same rules hold for plain functions such as a data set's `synthesize`.
"""

from __future__ import annotations

import inspect
import json
import re
import textwrap
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model
from pydantic.errors import PydanticUserError

from mtframe.errors import MtframeError, PluginError, RecipeError, described, raised_at
from mtframe.registry import did_you_mean, kind_of

# Problems that a message tells: each costs a look for what was meant.
_MOST_NAMED = 100

_CONFIG = ConfigDict(extra="forbid", strict=True, arbitrary_types_allowed=True, protected_namespaces=())


@dataclass(frozen=True, slots=True)
class OptionDoc:
    """What there is to know about one option.

    Attributes:
        name: As a recipe writes it.
        type: Its annotation.
        default: Its default as Python writes it; None if the option is required.
        doc: Its entry in the docstring.
    """

    name: str
    type: str
    default: str | None
    doc: str


def wired_names(component: Callable[..., Any], kind: str | tuple[str, ...]) -> tuple[str, ...]:
    """Names of the parameters before `*`: what the component asks the framework for.

    Args:
        component: A class, or a function.
        kind: Name of its kind, or the names that its caller can supply.

    Raises:
        PluginError: It asks for something that its kind does not wire.
    """
    known = kind if isinstance(kind, tuple) else kind_of(kind).wired
    wired = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.POSITIONAL_ONLY)
    names = tuple(parameter.name for parameter in _parameters(component) if parameter.kind in wired)
    strange = [name for name in names if name not in known]
    if strange:
        raise PluginError(
            f"{_label(component)}: parameter {strange[0]!r} stands before '*', where the framework wires, "
            f"and here it can wire {', '.join(known) or 'nothing'}; an option belongs after '*'"
        )
    return names


def schema(component: Callable[..., Any], kind: str | tuple[str, ...]) -> type[BaseModel]:
    """A pydantic model of the component's options; each field's alias is the option's name.

    Raises:
        PluginError: The component asks for something its kind does not wire, or an annotation cannot be used.
    """
    wired_names(component, kind)
    # Fields have a trailing underscore, so that an option may be called `copy` or `schema`.
    fields: dict[str, Any] = {
        f"{parameter.name}_": (
            _annotation(component, parameter),
            Field(... if parameter.default is parameter.empty else parameter.default, alias=parameter.name),
        )
        for parameter in _options(component)
    }
    try:
        return create_model(getattr(component, "__name__", "Options"), __config__=_CONFIG, **fields)
    except PydanticUserError as error:
        raise PluginError(f"{_label(component)}: options cannot be checked: {error}") from error


def check(
    component: Callable[..., Any], kind: str | tuple[str, ...], options: Mapping[str, Any], where: str
) -> dict[str, Any]:
    """The options that were given, checked and converted to their annotations (text to Path, list to tuple).

    Args:
        component: A class, or a function.
        kind: Name of its kind, or the names that its caller can supply.
        options: Values as YAML gives them.
        where: Place in the recipe, e.g. `tasks.objects.head`, to begin each message with.

    Raises:
        RecipeError: Options are unknown, missing or of the wrong type: all of them in one message.
    """
    model = schema(component, kind)
    try:
        # Strict, and as JSON: text becomes a Path and a list a tuple, but "3" no int and "yes" no bool.
        checked = model.model_validate_json(json.dumps(dict(options), default=str))
    except ValidationError as error:
        names = [parameter.name for parameter in _options(component)]
        wrong = problems(error, options, where, lambda place: [] if place else names)
        raise RecipeError("\n".join(wrong)) from None
    except (TypeError, ValueError) as error:
        raise RecipeError(f"{where}: {error}") from None
    given = [name for name in model.model_fields if name in checked.model_fields_set]
    return {name.removesuffix("_"): getattr(checked, name) for name in given}


def build(
    component: Callable[..., Any],
    kind: str | tuple[str, ...],
    options: Mapping[str, Any],
    wired: Mapping[str, Any],
    where: str,
) -> Any:
    """Constructs the component with its options and with what it asks for of `wired`.

    Raises:
        RecipeError: Options are wrong, or the constructor refused them with a ValueError.
        MtframeError: Whatever the constructor raises of that kind, with `where` in front.
        PluginError: The constructor raised anything else, or exits; chained to it.
    """
    return construct(component, kind, check(component, kind, options, where), wired, where)


def construct(
    component: Callable[..., Any],
    kind: str | tuple[str, ...],
    checked: Mapping[str, Any],
    wired: Mapping[str, Any],
    where: str,
) -> Any:
    """Constructs the component as `build` does, with options that `check` has given."""
    asked = {name: wired[name] for name in wired_names(component, kind) if name in wired}
    try:
        return component(**asked, **checked)
    except MtframeError as error:
        error.args = (_located(str(error), component, where),)
        raise
    except ValueError as error:
        raise RecipeError(_located(str(error), component, where)) from error
    except (KeyboardInterrupt, MemoryError):
        raise
    except BaseException as error:
        # SystemExit too: a component that exits must not end the program as if all were done.
        raise PluginError(f"{where}: {_label(component)} raised {described(error)} ({raised_at(error)})") from error


def describe(component: Callable[..., Any], kind: str | tuple[str, ...]) -> list[OptionDoc]:
    """The component's options in the order of its signature, with their entries in its docstring."""
    wired_names(component, kind)
    docs = _documented(component)
    return [
        OptionDoc(
            parameter.name,
            _type_text(_annotation(component, parameter)),
            None if parameter.default is parameter.empty else repr(parameter.default),
            docs.get(parameter.name, ""),
        )
        for parameter in _options(component)
    ]


def problems(
    error: ValidationError, data: Any, where: str, known: Callable[[Sequence[int | str]], Sequence[str]]
) -> list[str]:
    """One line a wrong place: the place, what was expected and what came.

    Args:
        error: What pydantic found.
        data: What it was given.
        where: Place of `data` in the recipe; may be empty.
        known: The names that are allowed at a place in `data`, to suggest for an unknown one.
    """
    found: dict[str, list[str]] = {}
    details = error.errors(include_url=False)
    for detail in details[:_MOST_NAMED]:
        path = _path_in(data, detail["loc"], detail["type"])
        place = ".".join(str(part) for part in ((where, *path) if where else path))
        said = found.setdefault(place, [])
        text = _problem(detail, path, known)
        # Members of a union complain one by one, of the same value.
        if text not in said:
            said.append(text)
    lines = [f"{place}: {_joined(said)}" if place else _joined(said) for place, said in found.items()]
    return lines + ([f"and {len(details) - _MOST_NAMED} more"] if len(details) > _MOST_NAMED else [])


def _problem(detail: Any, path: Sequence[int | str], known: Callable[[Sequence[int | str]], Sequence[str]]) -> str:
    if detail["type"] == "missing":
        return "required"
    if detail["type"] == "extra_forbidden":
        names = known(path[:-1])
        hint = did_you_mean(str(path[-1]), names)
        listed = f"; there are: {', '.join(names)}" if names else ""
        return f"unknown option{hint or listed}"
    message = detail["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ")
    if message.startswith("Input should be "):
        wanted = message.removeprefix("Input should be ").replace("a valid list", "a list")
        wanted = re.sub(r"a valid dictionary(?: or instance of \w+)?", "a mapping", wanted)
        return f"expected {wanted}, got {_short(detail['input'])}"
    if detail["type"] == "json_invalid" and "surrogate" in message:
        return "a name or path has bytes that are no text in this locale, and a recipe holds only text; rename it"
    if detail["type"] == "too_short":
        return f"expected at least {detail['ctx']['min_length']}, got {detail['ctx']['actual_length']}"
    return message


def _joined(messages: list[str]) -> str:
    ends = {message.rpartition(", got ")[2] for message in messages}
    if len(messages) > 1 and len(ends) == 1 and all(message.startswith("expected ") for message in messages):
        wanted = [message.rpartition(", got ")[0].removeprefix("expected ") for message in messages]
        return f"expected {' or '.join(wanted)}, got {ends.pop()}"
    return "; ".join(messages)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _path_in(data: Any, loc: tuple[int | str, ...], problem: str) -> tuple[int | str, ...]:
    """The part of pydantic's location that is in the data: it also names the members of unions."""
    path: list[int | str] = []
    for number, part in enumerate(loc):
        in_list = isinstance(data, list | tuple) and isinstance(part, int) and part < len(data)
        if in_list or (isinstance(data, Mapping) and part in data):
            data = data[part]
        elif not (problem in ("missing", "extra_forbidden") and number == len(loc) - 1):
            continue
        path.append(part)
    return tuple(path)


def _parameters(component: Callable[..., Any]) -> list[inspect.Parameter]:
    try:
        return list(inspect.signature(component).parameters.values())
    except (TypeError, ValueError) as error:
        raise PluginError(f"{_label(component)}: its signature cannot be read: {error}") from error


def _options(component: Callable[..., Any]) -> list[inspect.Parameter]:
    return [parameter for parameter in _parameters(component) if parameter.kind is parameter.KEYWORD_ONLY]


def _annotation(component: Callable[..., Any], parameter: inspect.Parameter) -> Any:
    """The annotation, evaluated where it was written.

    One at a time: annotations of wired parameters may name what is imported for type checkers only.
    """
    if parameter.annotation is parameter.empty:
        return Any
    function = inspect.unwrap(component.__init__ if isinstance(component, type) else component)  # type: ignore[misc]
    holder = SimpleNamespace(__annotations__={parameter.name: parameter.annotation})
    try:
        hints = typing.get_type_hints(holder, getattr(function, "__globals__", {}), include_extras=True)
    except Exception as error:
        label = f"{_label(component)}: annotation of {parameter.name!r}"
        raise PluginError(f"{label} cannot be read: {error}") from error
    return hints[parameter.name]


def _label(component: Any) -> str:
    return f"{component.__module__}:{getattr(component, '__qualname__', type(component).__qualname__)}"


def _located(message: str, component: Callable[..., Any], where: str) -> str:
    """`root: no folder` of the data set at `tasks.faces.dataset` is about `tasks.faces.dataset.root`."""
    about = message.partition(":")[0]
    if message.startswith(where):
        return message
    return f"{where}{'.' if about in [p.name for p in _options(component)] else ': '}{message}"


def _type_text(annotation: Any) -> str:
    if annotation is Any:
        return "any"
    plain = isinstance(annotation, type) and not typing.get_args(annotation)
    text = annotation.__name__ if plain else str(annotation).replace("NoneType", "None")
    # Without the modules in front of names; dots inside the quotes of a Literal stay.
    return re.sub(r"('[^']*')|(?:\b[A-Za-z_]\w*\.)+", lambda match: match[1] or "", text)


def _documented(component: Callable[..., Any]) -> dict[str, str]:
    """Entries of the docstrings' sections `Args:`, and `Attributes:` for what is not there, by name."""
    found: dict[str, str] = {}
    for title in ("Args", "Attributes"):
        for thing in (component, getattr(component, "__init__", None)):
            text = inspect.cleandoc(getattr(thing, "__doc__", None) or "")
            for section in re.findall(rf"^{title}:\n((?:[ \t]+.*\n?|\n)+)", text, flags=re.MULTILINE):
                found = {**_entries(section), **found}
    return found


def _entries(section: str) -> dict[str, str]:
    """`name: text` entries, indented lines going on with the text."""
    found: dict[str, str] = {}
    names: list[str] = []
    for line in textwrap.dedent(section).splitlines():
        entry = re.match(r"(\w+(?:, \w+)*)(?: ?\([^)]*\))?:(.*)", line)
        if entry:
            names = entry[1].split(", ")
        for name in names:
            found[name] = f"{found.get(name, '')} {(entry[2] if entry else line).strip()}".strip()
    return found
