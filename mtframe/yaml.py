"""YAML without surprises: the scalars of YAML 1.2's core schema, no duplicate keys, no aliases.

PyYAML reads YAML 1.1, where `1e-3` is text, `no` is false, `010` is 8 and `1:30` is 90.
"""

from __future__ import annotations

import re
from collections.abc import Hashable
from typing import Any, cast

import yaml

from mtframe.errors import MtframeError, RecipeError

# libyaml where PyYAML was built with it: ten times as fast.
_Base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

# Levels of lists and mappings within each other, and digits of a whole number.
_DEPTH, _DIGITS = 100, 40

# Of a document's file.
MOST_BYTES = 4_000_000

# Beyond, whole numbers that differ may have one hash, and a dict of them takes the time of their number squared.
_LARGEST_KEY = 2**60

# A line that may be a directive; so may one of a text, if it is not indented.
_PERCENT = re.compile("(?:^|[\n\r\x85\u2028\u2029])\ufeff?%")
_OPENS = (yaml.BlockSequenceStartToken, yaml.BlockMappingStartToken, yaml.FlowSequenceStartToken,
          yaml.FlowMappingStartToken)  # fmt: skip
_CLOSES = (yaml.BlockEndToken, yaml.FlowSequenceEndToken, yaml.FlowMappingEndToken)

_NULL = re.compile(r"~|null|Null|NULL|")
_BOOL = re.compile(r"true|True|TRUE|false|False|FALSE")
_INT = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")


def parse_yaml(text: str, where: str, error: type[MtframeError] = RecipeError) -> Any:
    """What a YAML document says, as dicts, lists, text, numbers, booleans and None.

    Args:
        text: The document.
        where: Its file, or what else to begin an error's message with.
        error: What to raise.

    Raises:
        MtframeError: It is not YAML, repeats a key, has a large number as a key, or has what is no plain value or could
            stand for more than fits into memory: aliases, tags, directives, long numbers, deep nesting; with the line.
            Of type `error`.
    """
    try:
        if _PERCENT.search(text):
            _check_directives(text)
        _check_events(text)
        return yaml.load(text, Loader=_Loader)
    except yaml.MarkedYAMLError as problem:
        mark = problem.problem_mark or problem.context_mark
        place = f", line {mark.line + 1}" if mark and "\n" in text else ""
        said = " ".join(part for part in (problem.context, problem.problem) if part)
        raise error(f"{where}{place}: {said}") from None
    except (yaml.YAMLError, ValueError) as problem:
        raise error(f"{where}: {' '.join(str(problem).split())}") from None


def _check_directives(text: str) -> None:
    """Raises YAMLError for any but `%YAML`, as the parser compares each tag's prefix with all others."""
    depth = 0
    for token in yaml.scan(text, Loader=_Base):
        if isinstance(token, yaml.DirectiveToken) and token.name != "YAML":
            problem = f"directives are not supported: %{token.name}"
            raise yaml.scanner.ScannerError(None, None, problem, cast(Any, token.start_mark))
        depth += isinstance(token, _OPENS) - isinstance(token, _CLOSES)
        if depth > _DEPTH:
            # What is refused for that, before anything that follows.
            return


def _check_events(text: str) -> None:
    """Raises YAMLError for what no recipe needs, before any of it is built; libyaml builds recursively, in C."""
    depth = 0
    for event in yaml.parse(text, Loader=_Base):
        problem, mark = None, cast(Any, event.start_mark)
        if isinstance(event, yaml.AliasEvent):
            problem = f"aliases are not supported: *{event.anchor}"
        elif isinstance(event, yaml.ScalarEvent | yaml.CollectionStartEvent) and event.tag is not None:
            problem = f"tags are not supported: {event.tag.replace('tag:yaml.org,2002:', '!!')}"
        elif isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            problem = "nested too deep" if depth > _DEPTH else None
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if problem is not None:
            raise yaml.composer.ComposerError(None, None, problem, mark)


def dump_yaml(value: Any, *, flow: bool = True) -> str:
    """A document that `parse_yaml` reads back as the same value.

    Args:
        value: Dicts, lists, text, numbers, booleans and None.
        flow: Whether the innermost mappings and lists stand in one line, `{name: dense, width: 64}`.
    """
    style = None if flow else False
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, default_flow_style=style, width=100)


class _Loader(_Base):
    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 - PyYAML's own way

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Hashable, Any]:
        seen: dict[Any, int] = {}
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, Hashable):
                problem = "expected a key of text, got a list or a mapping"
                raise yaml.constructor.ConstructorError(None, None, problem, key_node.start_mark)
            if isinstance(key, int) and abs(key) > _LARGEST_KEY:
                problem = f"a number is a key only up to 2 to the power of 60, got {key}; quote it"
                raise yaml.constructor.ConstructorError(None, None, problem, key_node.start_mark)
            line = key_node.start_mark.line + 1
            if key in seen:
                problem = f"duplicate key {key!r}, already given in line {seen[key]}"
                raise yaml.constructor.ConstructorError(None, None, problem, key_node.start_mark)
            seen[key] = line
        return super().construct_mapping(node, deep)

    def construct_int(self, node: Any) -> int:
        text = self.construct_scalar(node)
        if len(text) > _DIGITS:
            problem = f"a number of {len(text)} digits"
            raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark)
        base = {"0o": 8, "0x": 16}.get(text[:2], 10)
        return int(text if base == 10 else text[2:], base)


class _Dumper(yaml.SafeDumper):
    """Knows both readings of a scalar, so that text which either takes for something else is quoted."""

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def represent_text(self, text: str) -> Any:
        # PyYAML writes some line breaks of Unicode as they are, and reads them back as spaces.
        style = '"' if re.search("[\r\n\x85\u2028\u2029]", text) else None
        return self.represent_scalar("tag:yaml.org,2002:str", text, style)


for _tag, _pattern, _first in (
    ("null", _NULL, ["~", "n", "N", ""]),
    ("bool", _BOOL, list("tTfF")),
    ("int", _INT, list("-+0123456789")),
    ("float", _FLOAT, list("-+.0123456789")),
):
    _whole = re.compile(rf"(?:{_pattern.pattern})\Z")
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", _whole, _first)
    _Dumper.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", _whole, _first)
_Dumper.add_representer(str, _Dumper.represent_text)
_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_int)
