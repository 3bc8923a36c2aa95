"""The pages for plugin authors: their examples run and train together, and no kind, component or option is left out."""

from __future__ import annotations

import contextlib
import importlib
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from command import mtframe
from fake_dist import make_dist
from mtframe import options
from mtframe.kinds import KINDS, members_of
from mtframe.registry import discover, resolve
from mtframe.yaml import dump_yaml, parse_yaml
from test_docs import OFFERED, PAGES, ROOT, blocks, section
from toy import toy_recipe

DOCS = ROOT / "docs"
REFERENCE = {kind: DOCS / "reference" / f"{kind}.md" for kind in KINDS if kind != "hooks"}

TUTORIAL = DOCS / "write-a-plugin.md"

# Whose blocks need more than to be run in order: tests of their own, here, in test_docs.py or in test_docs_users.py.
ELSEWHERE = {ROOT / "README.md", DOCS / "python.md", TUTORIAL, *DOCS.glob("coming-from-*.md")}
RUN = [path for path in PAGES if path not in ELSEWHERE and blocks(path, "python")]

PYTHON = re.compile(r"^```python\n(.*?)^```$(?:\n\n```\n(?!mtframe )(.*?)^```$)?", flags=re.MULTILINE | re.DOTALL)

BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", flags=re.MULTILINE | re.DOTALL)

# A kind in running text.
WORDS = {"dataset": "Data set", "preset": "Preset"}

kinds = pytest.mark.parametrize("kind", REFERENCE)


@pytest.mark.parametrize("path", RUN, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_python_blocks_of_a_page_run_in_order(
    path: Path, here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In one module, in an empty folder.

    `print(...)  # text` at the beginning of a line prints that text; a block without a language right behind one of
    Python, if it is no call, is what that prints.
    """
    Path("recipe.yaml").write_text(dump_yaml(toy_recipe(steps=2)), encoding="utf-8")
    # The plugin that pages speak of where any will do.
    kite = {"mtframe.head": {"kite": "mtframe_classification.heads:Classifier"}}
    monkeypatch.syspath_prepend(make_dist(here.parent / "site", "kite-head", kite))
    module = ModuleType(f"page_{path.stem.replace('-', '_')}")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    said: list[str] = []
    for number, (source, output) in enumerate(PYTHON.findall(path.read_text(encoding="utf-8")), 1):
        exec(compile(source, f"{path.name}, python block {number}", "exec"), vars(module))
        said += re.findall(r"^print\(.*\)  # (.*)$", source, flags=re.MULTILINE) + output.splitlines()
    printed = capsys.readouterr().out.splitlines()
    assert [line for line in printed if line in said] == said


def anchors(path: Path) -> set[str]:
    """What a link to a heading of a page says behind `#`, as GitHub makes it."""
    headings = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_to_headings_lead_to_headings(path: Path) -> None:
    for file, anchor in re.findall(r"\]\(([^)\s#:]*)#([^)\s]+)\)", path.read_text(encoding="utf-8")):
        assert anchor in anchors(path.parent / file if file else path), f"{path.name}: {file}#{anchor}"


@kinds
def test_a_kind_has_a_page_that_names_its_contract(kind: str) -> None:
    text = REFERENCE[kind].read_text(encoding="utf-8")
    assert text.startswith(f"# The kind `{kind}`\n")
    contract = section(REFERENCE[kind], "Contract")
    for name in KINDS[kind].wired:
        assert f"| `{name}` |" in contract, f"wired {name} is not explained"
    for name in KINDS[kind].gives:
        assert name.startswith("__") or re.search(rf"`{name}\b", contract), f"{name}, which it gives, is not explained"
    assert not KINDS[kind].targets or "| `target` |" in contract
    for heading in ("Optional", "Errors", "Example", "Common mistakes"):
        assert section(REFERENCE[kind], heading).strip()


@kinds
def test_what_a_component_may_do_besides_is_explained_by_its_protocol_s_name(kind: str) -> None:
    optional = section(REFERENCE[kind], "Optional")
    for ability in KINDS[kind].abilities:
        for name in members_of(ability):
            assert re.search(rf"^\|.*`{name}\b.*`{ability.__name__}`", optional, re.MULTILINE), (
                f"{ability.__name__}: {name}"
            )


def test_hooks_have_a_page() -> None:
    assert (DOCS / "hooks.md").read_text(encoding="utf-8").startswith("# Hooks\n")


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The examples of all reference pages as one installed distribution, `my-parts`: names by kind."""
    entries: dict[str, dict[str, str]] = {}
    sources = {"my_parts/__init__": ""}
    names: dict[str, str] = {}
    for kind, path in REFERENCE.items():
        (declared,) = blocks(path, "toml")
        for group, named in tomllib.loads(declared)["project"]["entry-points"].items():
            entries.setdefault(group, {}).update(named)
            if group == f"mtframe.{kind}":
                (names[kind],) = named
        (file,) = re.findall(r"`(my_parts/\w+)\.py`:\n", path.read_text(encoding="utf-8"))
        sources[file] = blocks(path, "python")[0]
    site = tmp_path_factory.mktemp("site")
    (site / "my_parts").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(make_dist(site, "my-parts", entries, sources))
        yield names
    for name in [name for name in sys.modules if name.partition(".")[0] == "my_parts"]:
        del sys.modules[name]
    importlib.invalidate_caches()


@kinds
def test_an_example_is_documented_and_shown(kind: str, package: dict[str, str]) -> None:
    component = resolve(kind, package[kind]).component
    for option in options.describe(component, kind):
        assert option.doc, f"option {option.name} is not in the docstring"
    shown = mtframe("plugins", "show", kind, package[kind])
    assert (shown.code, shown.err) == (0, "")
    assert "from my-parts 1.2.3" in shown.out


def test_the_examples_keep_their_contracts(package: dict[str, str]) -> None:
    from mtframe.testing import Kit, Skip

    # These import each part in a process of its own, which takes seconds; the tutorial's parts are put through them.
    slow = {"imports-silently", "imports-no-torch"}
    checked = set()
    for case in Kit("my-parts").cases():
        if case.check.name not in slow:
            with contextlib.suppress(Skip):
                case.run()
                checked.add(case.subject.kind)
    assert checked == set(REFERENCE)


def written(kind: str) -> Any:
    """What a kind's page writes into a recipe."""
    (block,) = blocks(REFERENCE[kind], "yaml")
    return parse_yaml(block, REFERENCE[kind].name)


def test_the_examples_train_together(package: dict[str, str], here: Path) -> None:
    recipe = written("preset") | written("backbone") | written("sharing") | written("balancer")
    for kind in ("dataset", "transform", "head", "loss", "metric"):
        recipe["tasks"]["daytime"] |= written(kind)
    # The same images for a second task: for what all tasks' losses and maps become, and for labels by path.
    recipe["tasks"]["again"] = {"preset": package["preset"], "images": "daytime", **written("dataset")}
    recipe["train"] = written("schedule")["train"] | {
        "epochs": 4,
        "workers": 0,
        "lr": 3e-3,
        "precision": "fp32",
        "ema": None,
        "evaluate_every": None,
    }
    Path("recipe.yaml").write_text(dump_yaml(recipe), encoding="utf-8")
    for call in (
        "data synthesize image-lists data/lists train=60 val=8",
        "data check image-lists data/lists",
        "data preview recipe.yaml -t daytime",
        "train recipe.yaml",
        "evaluate runs/recipe --out scores",
        "predict runs/recipe data/lists/images/0000.jpg",
    ):
        result = mtframe(*call.split())
        assert (result.code, result.err) == (0, ""), f"mtframe {call}: {result.err}"
    scores = mtframe("evaluate", "runs/recipe", "--json").out
    for task in ("daytime", "again"):
        assert parse_yaml(scores, "scores")[task]["balanced_accuracy"] >= 0.9
    assert Path("scores/daytime-per-class-recall.png").is_file()


def plugin_page(kind: str, value: str) -> Path:
    """Where a built-in component is described."""
    package = value.partition(":")[0].partition(".")[0]
    if kind == "balancer" and package == "mtframe":
        return DOCS / "plugins" / "balancers.md"
    return REFERENCE[kind] if package == "mtframe" else DOCS / "plugins" / f"{package.removeprefix('mtframe_')}.md"


def entry(path: Path, kind: str, name: str) -> str:
    """The paragraph of a page that begins with a bold kind and name."""
    bold = f"**{WORDS.get(kind, kind.capitalize())} `{name}`.**"
    found = [part for part in re.split(r"\n{2,}", path.read_text(encoding="utf-8")) if part.startswith(bold)]
    assert len(found) == 1, f"{path.relative_to(ROOT)}: expected one paragraph that begins with {bold}"
    return " ".join(found[0].removeprefix(bold).split())


def same(given: Any, default: Any) -> bool:
    """Whether a default is written as it is; of a number, three digits."""
    if isinstance(default, tuple):
        return len(given) == len(default) and all(map(same, given, default))
    if isinstance(default, float):
        return given == pytest.approx(default, rel=5e-3)
    return bool(given == default)


BUILT_IN = [(kind, name) for kind, named in OFFERED.items() for name in named]


@pytest.mark.parametrize(("kind", "name"), BUILT_IN, ids=lambda part: part)
def test_a_built_in_component_is_on_its_page_with_every_option_and_default(kind: str, name: str) -> None:
    path = plugin_page(kind, OFFERED[kind][name])
    text = entry(path, kind, name)
    (offered,) = [part for part in discover(kind) if (part.name, part.dist) == (name, "mtframe")]
    component = offered.load()
    documented = re.findall(r"`(\w+)` \(([^)]*)\)", text)
    described = options.describe(component, kind)
    assert [option for option, _ in documented] == [option.name for option in described]
    for (option, given), known in zip(documented, described, strict=True):
        default = "required" if known.default is None else eval(known.default)
        assert same(parse_yaml(given.strip("`"), option), default), f"{option} of {name}: {known.default}"
    for part in ("dataset", "transform", "head", "loss", "metrics") if kind == "preset" else ():
        filled = getattr(component, part)
        for value in filled if isinstance(filled, tuple) else (filled,):
            assert f"`{value if isinstance(value, str) else value['name']}`" in text, f"{part} of preset {name}"


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """What `pip install -e` does for the packages it is called with.

    Not pip itself, which takes half a minute to find that all it needs is there; that packages of the scaffold can be
    built and installed is tested with it.
    """
    before = set(sys.modules)

    def install(folder: Path) -> None:
        project = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        site = make_dist(tmp_path / "site", project["name"], project["entry-points"], version=project["version"])
        for path in (site, folder / "src"):
            monkeypatch.syspath_prepend(path.resolve())

    yield install
    for name in set(sys.modules) - before:
        if name.partition(".")[0] == "small_parts":
            del sys.modules[name]


def fill(line: str, text: str) -> None:
    """Writes a block into the file that the line before it names."""
    (file,) = map(Path, re.findall(r"`([\w./-]+\.\w+)`", line))
    if line.startswith("`"):
        file.write_text(text, encoding="utf-8")
    elif "in place of the entry point" in line:
        changed, count = re.subn(
            r"^\[project\.entry-points.*?\n\n", f"{text}\n", file.read_text(encoding="utf-8"), flags=re.M | re.S
        )
        assert count == 1
        file.write_text(changed, encoding="utf-8")
    else:
        assert "dd to `" in line, line
        file.write_text(f"{file.read_text(encoding='utf-8')}\n\n{text}", encoding="utf-8")


def call_each(lines: str, said: str) -> None:
    """Runs calls of mtframe; `said` is the block after them, which may be the error they end in."""
    for line in lines.splitlines():
        call, _, goal = line.partition(" > ")
        result = mtframe(*shlex.split(call)[1:])
        wanted = (2, said) if said.startswith("error: ") else (0, "")
        assert (result.code, result.err) == wanted, f"{call}: {result.err}\n{result.out}"
        if goal:
            Path(goal).write_text(result.out, encoding="utf-8")


def test_the_tutorial_goes_from_nothing_to_a_trained_package(here: Path, installed: Any) -> None:
    page = TUTORIAL.read_text(encoding="utf-8").replace("train=320 val=80", "train=16 val=8")
    # Enough to go through everything; what it learns in as many steps as the page has is no matter here.
    page = re.sub(r"(steps[:=] ?)200", r"\g<1>2", page)
    found = list(BLOCK.finditer(page))
    for block, following in zip(found, [*found[1:], None], strict=True):
        language, text = block.groups()
        if language in ("python", "yaml", "toml"):
            fill(page[: block.start()].rstrip().rpartition("\n")[2], text)
        elif text.startswith("python -m pip install"):
            installed(Path(shlex.split(text)[-1].partition("[")[0]))
        elif language == "bash":
            subprocess.run(text, shell=True, check=True)
        elif text.startswith("small-parts/"):
            names = re.findall(r"\S*[./]\w*\S*", re.sub(r" {3}.*", "", text.replace("\n  ", "\n"), flags=re.M))
            assert [name for name in names[1:] if not (Path("small-parts") / name).exists()] == []
        elif not text.startswith("error: "):
            call_each(text, following[2] if following is not None else "")
