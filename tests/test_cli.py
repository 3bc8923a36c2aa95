"""The light commands, exit codes, and that the reference names every command and option."""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer

from fake_dist import KIT_ENTRIES, make_dist, make_kit
from mtframe import __version__, registry
from mtframe.cli import _app, app, main
from mtframe.errors import DataError, MtframeError
from mtframe.recipe import Choice, Recipe, TaskRecipe, TrainOptions, load_recipe

DOCS = Path(__file__).resolve().parents[1] / "docs"
HEAD = "class Head:\n    def __init__(self, features): pass\n"

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """Runs the command line: exit code, output, errors."""
    monkeypatch.setenv("COLUMNS", "30")

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["mtframe", *arguments])
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            main()
        captured = capsys.readouterr()
        return int(stop.value.code or 0), captured.out, captured.err

    return run


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Only the made-up distributions of this folder are installed, `kite-kit`, and what every recipe names."""
    folder = make_kit(tmp_path / "site")
    monkeypatch.syspath_prepend(folder)
    everything = registry.installed.__wrapped__

    def ours(path: tuple[str, ...]) -> tuple[registry.Component, ...]:
        return tuple(
            component
            for component in everything(path)
            if component.dist != "mtframe" or component.name in ("csv-logger", "joint")
        )

    monkeypatch.setattr(registry, "installed", cache(ours))
    yield folder
    sys.modules.pop("kitekit", None)


def test_version(call: Call) -> None:
    assert call("--version") == (0, f"mtframe {__version__}\n", "")


def test_plugins_list_keeps_names_whole(call: Call, site: Path) -> None:
    code, out, err = call("plugins", "list")
    assert (code, err) == (0, "")
    rows = [line.split() for line in out.splitlines()]
    assert rows[0] == ["KIND", "NAME", "DISTRIBUTION", "VERSION", "NOTE"]
    listed = {(row[0], row[1], row[2], row[3]) for row in rows[1:]}
    assert listed == {
        (group.removeprefix("mtframe."), name, "kite-kit", "1.2.3")
        for group, named in KIT_ENTRIES.items()
        for name in named
    } | {("hooks", "csv-logger", "mtframe", __version__), ("schedule", "joint", "mtframe", __version__)}
    assert len({line.index("kite-kit") for line in out.splitlines() if "kite-kit" in line}) == 1


def test_plugins_list_marks_what_is_ambiguous_or_broken(call: Call, site: Path) -> None:
    make_dist(site, "twin-kit", {"mtframe.head": {"kite-head": "no_such_module:Head"}})
    make_dist(site, "watch-kit", {"mtframe.hooks": {"watch": "watch_kit:Watch"}}, {"watch_kit": ""}, "0.5")
    _, out, _ = call("plugins", "list")
    lines = [re.sub(" +", " ", line) for line in out.splitlines()]
    assert "head kite-head kite-kit 1.2.3 ambiguous: write kite-head@kite-kit" in lines
    assert (
        "head kite-head twin-kit 1.2.3 ambiguous: write kite-head@twin-kit; broken: no module named 'no_such_module'"
    ) in lines
    assert "hooks watch watch-kit 0.5" in lines
    _, out, _ = call("plugins", "list", "loss")
    assert [line.split()[1] for line in out.splitlines()[1:]] == ["kite-loss"]


def test_plugins_show_gives_origin_docstring_and_options(call: Call, site: Path) -> None:
    code, out, _ = call("plugins", "show", "dataset", "kites")
    assert code == 0
    assert out == (
        "dataset kites\n"
        "from kite-kit 1.2.3 (kitekit:Kites)\n"
        "\n"
        "Kites in a folder.\n"
        "\n"
        "Wired by the framework: split\n"
        "\n"
        "Options:\n"
        "  root: Path (required)\n"
        "      The folder.\n"
        "  people: str | None = 'all'\n"
        "      Who holds them: a long story.\n"
        "\n"
        "Options of mtframe data synthesize kites ROOT:\n"
        "  seed: int = 0\n"
        "  count: int = 10\n"
        "\n"
        "Optional abilities: Synthesizes (synthesize)\n"
    )


def test_plugins_show_of_a_family_its_member_and_a_preset(call: Call, site: Path) -> None:
    _, out, _ = call("plugins", "show", "backbone", "kitenet")
    assert "A family; name a member, as in kitenet/MEMBER. Search: mtframe backbones 'kitenet/PATTERN'" in out
    _, out, _ = call("plugins", "show", "backbone", "kitenet/large")
    assert "  pretrained: bool = False" in out
    assert "Member large:\n  parameters: 12\n  note: [bold]large[/bold]\n" in out
    _, out, _ = call("plugins", "show", "preset", "kite-watching")
    assert "  head: {'name': 'kite-head', 'width': 64}\n" in out


def test_plugins_show_of_a_file(call: Call, site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "heads.py").write_text(HEAD, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    code, out, _ = call("plugins", "show", "head", "./heads.py:Head")
    assert code == 0
    assert f"from {tmp_path}/heads.py" in out
    assert "Wired by the framework: features\n\nOptions: none" in out


def test_a_broken_plugin_takes_nobody_down_and_its_traceback_is_shown(call: Call, site: Path) -> None:
    source = "def deep():\n    raise RuntimeError('[red]boom[/red]')\n\ndeep()\n"
    entries = {"mtframe.head": {"bad": "bad_kit:Head"}, "mtframe.backbone": {"badnet": "bad_kit:Net"}}
    make_dist(site, "bad-kit", entries, {"bad_kit": source})
    assert call("plugins", "list")[0] == 0
    code, _, err = call("plugins", "show", "head", "bad")
    assert code == 2
    assert "in deep" in err
    assert err.splitlines()[-2].startswith("error: head 'bad' of bad-kit 1.2.3 cannot be imported")
    assert "[red]boom[/red]" in err.splitlines()[-2]
    code, out, err = call("backbones", "*")
    assert (code, out) == (0, "kitenet/small\nkitenet/large\n")
    assert "left out: backbone 'badnet'" in err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("plugins", "show", "head", "kite-haed"), "no head 'kite-haed'; did you mean 'kite-head'?"),
        (("plugins", "show", "heads", "x"), "no kind 'heads'; did you mean 'head'?"),
        (("plugins", "list", "heads"), "no kind 'heads'; did you mean 'head'?"),
        (("backbones", "shark*"), "no backbone matches 'shark*'; try a wider pattern such as '*shark*'"),
        (("init", "kites=kite-watchin", "-b", "kitenet/small"), "did you mean 'kite-watching'?"),
        (("init", "kites", "-b", "kitenet/small"), "expected NAME=PRESET:ROOT"),
        (("init", "kites=kite-watching", "-b", "kitenet/small", "train.epoch=1"), "did you mean 'epochs'?"),
        (("train",), "expected a recipe file"),
        (("train", "nowhere.yaml"), "nowhere.yaml: cannot read the recipe: No such file"),
    ],
)
def test_a_wrong_call_is_one_message_and_exit_code_2(
    call: Call, site: Path, arguments: tuple[str, ...], said: str
) -> None:
    code, out, err = call(*arguments)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert said in err
    assert "Traceback" not in err


@pytest.mark.parametrize("arguments", [("nope",), ("init",), ("plugins", "show", "head"), ("train", "--nope")])
def test_usage_errors_exit_with_2(call: Call, arguments: tuple[str, ...]) -> None:
    assert call(*arguments)[0] == 2


@pytest.mark.parametrize(("error", "code"), [(DataError("[a] file"), 1), (MtframeError("work"), 1)])
def test_failed_work_exits_with_its_code_and_no_markup(
    call: Call, monkeypatch: pytest.MonkeyPatch, error: MtframeError, code: int
) -> None:
    def fail() -> None:
        raise error

    monkeypatch.setattr(_app, "app", fail)
    assert call() == (code, "", f"error: {error}\n")


def test_a_bug_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_app, "app", lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        main()


def test_backbones_match_with_and_without_the_family(call: Call, site: Path) -> None:
    assert call("backbones", "sm*")[1] == "kitenet/small\n"
    assert call("backbones", "kitenet/*")[1] == "kitenet/small\nkitenet/large\n"
    assert call("backbones", "*", "--pretrained")[1] == "kitenet/large\n"


def test_init_prints_a_whole_recipe(call: Call, site: Path, tmp_path: Path) -> None:
    parts = ("sharing.name=whole", "balancer.name=total", "tasks.b.head.num_levels=2")
    code, out, err = call(
        "init", "a=kite-watching", "b=kite-watching:/data/b", *parts, "-b", "kitenet/small", "train.epochs=5"
    )
    assert (code, err) == (0, "")
    path = tmp_path / "recipe.yaml"
    path.write_text(out, encoding="utf-8")
    recipe = load_recipe(path)
    assert recipe.tasks["a"].dataset.options == {"root": "data/kites"}
    assert recipe.tasks["b"].dataset.options == {"root": "/data/b"}
    assert recipe.tasks["b"].head.options == {"width": 64, "num_levels": 2}
    assert recipe.train.epochs == 5
    assert recipe.check()


def test_a_recipe_is_printed_in_the_encoding_that_recipes_are_read_in(
    site: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    out = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "argv", ["mtframe", "init", "a=kite-watching:data/größe", "sharing.name=whole",
                                      "balancer.name=total", "-b", "kitenet/small"])  # fmt: skip
    with pytest.raises(SystemExit):
        main()
    (tmp_path / "recipe.yaml").write_bytes(out.buffer.getvalue())  # type: ignore[attr-defined]
    assert load_recipe(tmp_path / "recipe.yaml").tasks["a"].dataset.options == {"root": "data/größe"}


def _commands(group: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from _commands(command, f"{prefix} {name}")
        else:
            yield f"{prefix} {name}", command


COMMANDS = dict(_commands(typer.main.get_command(app), "mtframe"))


def _section(page: str, heading: str) -> str:
    sections = re.split(r"^## ", (DOCS / page).read_text(encoding="utf-8"), flags=re.MULTILINE)
    found = [section for section in sections if section.splitlines()[0].strip("` ") == heading]
    assert found, f"docs/{page} has no heading '## `{heading}`'"
    return found[0]


@pytest.mark.parametrize("name", COMMANDS)
def test_reference_has_every_command_and_option(name: str) -> None:
    section = _section("cli.md", name)
    for parameter in COMMANDS[name].params:
        for option in parameter.opts if parameter.param_type_name == "option" else ():
            if option != "--help":
                assert f"`{option}" in section, f"docs/cli.md does not explain {option} of {name}"


def test_reference_has_no_command_that_is_not_there() -> None:
    headings = re.findall(r"^## `(mtframe .+)`$", (DOCS / "cli.md").read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert sorted(headings) == sorted(COMMANDS)


@pytest.mark.parametrize(("heading", "model"), [("train", TrainOptions), ("tasks", TaskRecipe), ("Keys", Recipe)])
def test_recipe_page_has_every_key_with_its_default(heading: str, model: Any) -> None:
    section = _section("recipe.md", heading)
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*?) \|", section, flags=re.MULTILINE))
    fields = {name: field for name, field in model.model_fields.items() if name != "base"}
    assert list(rows) == list(fields)
    for name, field in fields.items() if model is TrainOptions else ():
        chosen = field.default.name if isinstance(field.default, Choice) else field.default
        default = "null" if chosen is None else str(chosen)
        written = rows[name].strip("`")
        same = written.lower() == default.lower() or float(written) == float(default)
        assert same, f"docs/recipe.md: train.{name} is {default}, not {rows[name]}"
