"""Documentation is held to the code: links, commands, recipes, examples, dependencies and the house's plan."""

from __future__ import annotations

import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from mtframe import options
from mtframe.cli import app
from mtframe.kinds import KINDS
from mtframe.recipe import Recipe, TaskRecipe, TrainOptions, load_recipe
from mtframe.registry import resolve
from mtframe.yaml import parse_yaml

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted(ROOT.glob("*.md")) + sorted((ROOT / "docs").rglob("*.md"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
COMMANDS: Any = typer.main.get_command(app)
OFFERED = {kind: PROJECT["project"]["entry-points"].get(f"mtframe.{kind}", {}) for kind in KINDS}

# Distributions whose package has another name.
PACKAGES = {"pillow": "PIL", "pyyaml": "yaml"}

page = pytest.mark.parametrize("path", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())


def blocks(path: Path, language: str) -> list[str]:
    """The fenced blocks of a page in one language; "" for those without."""
    return re.findall(rf"^```{language}\n(.*?)^```$", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


def rows(text: str) -> list[list[str]]:
    """Cells of the tables in a text, without heads and rules."""
    table = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")
    ]
    heads = {number - 1 for number, cells in enumerate(table) if set(cells[0]) == {"-"}}
    return [cells for number, cells in enumerate(table) if number not in heads and set(cells[0]) != {"-"}]


def section(path: Path, heading: str) -> str:
    """What stands under a heading."""
    found = re.search(
        rf"^(#+) {re.escape(heading)}\n(.*?)(?=^#{{1,2}} |\Z)",
        path.read_text(encoding="utf-8"),
        re.MULTILINE | re.DOTALL,
    )
    assert found, f"{path.name} has no heading {heading!r}"
    return found[2]


@pytest.mark.parametrize(("heading", "ends"), [("Run it", "mtframe demo"), ("Test it", "pytest -n 2")])
def test_readme_has_one_command_each_to_run_and_to_test_it(heading: str, ends: str) -> None:
    text = section(ROOT / "README.md", heading)
    assert text.count("```bash\n") == 1
    (command,) = re.findall(r"^```bash\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)
    assert command.count("\n") == 1
    assert command.startswith("python3 -m venv .venv && .venv/bin/pip install -q ")
    assert command.rstrip().endswith(ends)


def test_readme_has_no_other_bash_block() -> None:
    assert len(blocks(ROOT / "README.md", "bash")) == 2


@page
def test_links_lead_somewhere(path: Path) -> None:
    targets = re.findall(r"\]\(([^)\s#]+)[^)]*\)", path.read_text(encoding="utf-8"))
    broken = [target for target in targets if ":" not in target and not (path.parent / target).exists()]
    assert not broken, f"{path.name} links to what is not there: {', '.join(broken)}"


def calls(path: Path) -> Iterator[list[str]]:
    """Every call of mtframe on a page, in blocks and in running text, as words after `mtframe`."""
    text = path.read_text(encoding="utf-8")
    shown = [line for block in blocks(path, "(?:bash)?") for line in block.splitlines()]
    fences = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    shown += [code.replace("\n", " ") for code in re.findall(r"`([^`]+)`", fences)]
    shown += re.findall(r"^# *(mtframe .*)", "\n".join(blocks(path, "yaml")), flags=re.MULTILINE)
    for line in shown:
        for call in re.findall(r"(?:^|&& )(?:\.venv/bin/)?mtframe (\S.*)", line):
            yield shlex.split(re.split(r" > |&&", call)[0], comments=True)


@page
def test_calls_name_commands_options_keys_and_presets_that_exist(path: Path) -> None:
    for words in calls(path):
        called = "mtframe " + " ".join(words)
        command = COMMANDS
        rest = list(words)
        while hasattr(command, "commands") and rest and re.fullmatch(r"[a-z][a-z-]*", rest[0]):
            assert rest[0] in command.commands, f"{path.name}: no such command: {called}"
            command = command.commands[rest.pop(0)]
        known = {"-h", "--help"} | {name for part in command.params for name in (*part.opts, *part.secondary_opts)}
        for word in rest:
            key, equals, value = word.partition("=")
            if word.startswith("-"):
                assert key in known, f"{path.name}: no such option: {called}"
            elif equals and key.startswith(("train.", "tasks.")):
                place, *inner = key.split(".")
                keys = TrainOptions.model_fields if place == "train" else TaskRecipe.model_fields
                assert inner[-1 if place == "train" else 1] in keys, f"{path.name}: no such key: {called}"
            elif equals and words[:2] == ["data", "preview"]:
                assert key.split(".")[0] in TaskRecipe.model_fields, f"{path.name}: no such key: {called}"
            elif equals and "." not in key and re.fullmatch(r"[a-z]+-[a-z]+(:.*)?", value):
                assert value.partition(":")[0] in OFFERED["preset"], f"{path.name}: no such preset: {called}"


def test_calls_are_found() -> None:
    assert ["demo"] in calls(ROOT / "README.md")
    assert ["plugins", "show", "head", "dense"] in calls(ROOT / "README.md")


@page
def test_whole_recipes_are_recipes(path: Path) -> None:
    for block in blocks(path, "yaml"):
        plain = parse_yaml(block, path.name)
        if {"backbone", "tasks"} <= plain.keys():
            assert Recipe.from_plain(plain).tasks


@pytest.mark.parametrize("path", sorted((ROOT / "docs" / "recipes").glob("*.yaml")), ids=lambda path: path.name)
def test_recipes_of_the_docs_are_recipes(path: Path) -> None:
    assert load_recipe(path).tasks


def test_readme_lists_what_is_built_in() -> None:
    listed = {cells[0].split()[0]: cells[1] for cells in rows(section(ROOT / "README.md", "What is built in"))}
    assert set(listed) == set(KINDS)
    for kind, names in OFFERED.items():
        written = set(re.findall(r"`([a-z0-9-]+)(?:/\.\.\.)?`", listed[kind]))
        assert written == set(names), f"README.md, what is built in: {kind}"


def test_readme_component_works_from_a_file_and_from_a_package(tmp_path: Path) -> None:
    import torch

    (source,) = blocks(ROOT / "README.md", "python")
    (declared,) = blocks(ROOT / "README.md", "toml")
    ((group, entry),) = tomllib.loads(declared)["project"]["entry-points"].items()
    ((_, value),) = entry.items()
    kind, attribute = group.removeprefix("mtframe."), value.partition(":")[2]
    (tmp_path / "balancers.py").write_text(source, encoding="utf-8")
    component = resolve(kind, f"./balancers.py:{attribute}", tmp_path).component
    balance = options.build(component, kind, {"eps": 1e-6}, {"tasks": ("a", "b")}, kind)
    # Gradients 1 and 3 long become 2 long.
    weights = balance.weigh(torch.tensor([[1.0, 0.5], [0.5, 9.0]]).double(), torch.ones(2).double())
    assert weights.tolist() == pytest.approx([2.0, 2 / 3], rel=1e-5)
    assert options.describe(component, kind)[0].doc


@pytest.mark.parametrize(
    "line",
    [cells[1].strip("`") for cells in rows(section(ROOT / "docs" / "python.md", "From Python")) if "(" in cells[1]],
)
def test_python_lines_beside_commands_name_what_is_there(line: str) -> None:
    names: dict[str, Any] = {}
    exec(blocks(ROOT / "docs" / "python.md", "python")[0], names)
    for name, attributes in re.findall(r"(?<![\w.\"])([A-Za-z_]\w*)((?:\.[a-z_]+)*)\(", line):
        thing: Any = Path if name == "Path" else names[name]
        for attribute in filter(None, attributes.split(".")):
            thing = getattr(thing, attribute)
        assert callable(thing)


def distributions(requirements: list[str]) -> set[str]:
    return {re.split(r"[<>=!~\[; ]", requirement)[0] for requirement in requirements}


def test_every_dependency_is_justified_and_nothing_else() -> None:
    project = PROJECT["project"]
    extras = [name for extra in project["optional-dependencies"].values() for name in extra]
    declared = distributions(project["dependencies"] + extras + PROJECT["build-system"]["requires"]) - {"mtframe"}
    table = rows(section(ROOT / "docs" / "architecture.md", "Dependencies"))
    assert all(len(cells) == 4 and all(cells) for cells in table), "each has what for, why this one, what else"
    justified = {cells[0] for cells in table}
    assert declared - justified == set(), "declared in pyproject.toml without a line in docs/architecture.md"
    assert justified - declared == set(), "a line in docs/architecture.md for what pyproject.toml does not declare"


def test_every_declared_dependency_is_imported() -> None:
    sources = "\n".join(
        file.read_text(encoding="utf-8") for folder in ("mtframe", "plugins") for file in (ROOT / folder).rglob("*.py")
    )
    imported = set(re.findall(r"^\s*(?:from|import) (\w+)", sources, flags=re.MULTILINE))
    declared = distributions(PROJECT["project"]["dependencies"])
    assert {name for name in declared if PACKAGES.get(name, name) not in imported} == set()


def test_the_house_is_described_as_it_is() -> None:
    described = {cells[0].strip("`") for cells in rows(section(ROOT / "docs" / "architecture.md", "The house"))}
    there = {
        path.stem for path in (ROOT / "mtframe").iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()
    }
    assert described == {name for name in there if not name.startswith("_")}


def test_import_rules_are_written_as_they_are_checked() -> None:
    (contract,) = (part for part in PROJECT["tool"]["importlinter"]["contracts"] if part["type"] == "layers")
    assert "\n".join(contract["layers"]) + "\n" in blocks(ROOT / "docs" / "architecture.md", "")


def test_contracts_are_described_as_they_are() -> None:
    table = {cells[0].strip("`"): cells for cells in rows(section(ROOT / "docs" / "architecture.md", "Contracts"))}
    assert list(table) == list(KINDS)
    for name, kind in KINDS.items():
        assert tuple(re.findall(r"`(\w+)`", table[name][1])) == kind.wired
        assert table[name][2] == ("yes" if kind.targets else "no")
