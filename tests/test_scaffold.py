"""`mtframe plugins new`: what it writes is a plugin that installs, passes its own tests, trains and is published."""

from __future__ import annotations

import ast
import csv
import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
import tomllib
import zipfile
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from command import Result, mtframe
from fresh import Fresh, bash_blocks, needs
from full_disk import fill
from mtframe import __version__
from mtframe.errors import RecipeError
from mtframe.kinds import KINDS
from mtframe.templates import requirement, write_package
from mtframe.yaml import parse_yaml
from test_imports import HEAVY, RUN, imported_by

ROOT = Path(__file__).resolve().parents[1]
TEMPLATES = ROOT / "mtframe" / "templates"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))

# What a run shows of a component, by kind, besides the version of its distribution: a file, and what is in it.
WEIGHTS = "checkpoints/last/weights.safetensors"
TRACES = {
    "backbone": (WEIGHTS, "sharing.backbone.middle.0.weight"),
    "sharing": (WEIGHTS, "sharing.own.task places.shift.2"),
    "head": (WEIGHTS, "heads.places.classify.1.weight"),
    "loss": ("metrics.csv", "places/focal"),
    "dataset": ("labels.json", "triangle"),
    "target": ("labels.json", '"target": "kite-target"'),
    "metric": ("metrics.json", "balanced_accuracy"),
    "preset": ("recipe.yaml", "label_smoothing: 0.05"),
    "hooks": ("best.json", '"score"'),
}

# The modules of a package; a kind of target comes with all that a task of it needs.
MODULES = {"target": ("target", "dataset", "head", "loss", "metric", "presets"), "preset": ("presets",)}

# All of them take three minutes, each a quarter of one; these are as different as any.
OFTEN = ("head", "dataset", "hooks")
KIND_BY_KIND = [pytest.param(kind, marks=[] if kind in OFTEN else [pytest.mark.slow]) for kind in KINDS]


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder `data` that the recipes train on."""
    here = tmp_path_factory.mktemp("scenes")
    _, commands = write_package("kite", "head", here / "kite")
    (call,) = re.findall(r"mtframe (data synthesize .*?) &&", commands[1])
    words = [word.replace("data/scenes", str(here / "data" / "scenes")) for word in shlex.split(call)]
    assert mtframe(*words).code == 0
    return here / "data"


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A package of every kind, to be read only."""
    folder = tmp_path_factory.mktemp("packages")
    for kind in KINDS:
        write_package(f"kite-{kind}", kind, folder / kind)
    return folder


def modules(kind: str) -> tuple[str, ...]:
    """Names of a package's modules, that of the kind itself first."""
    return MODULES.get(kind, (kind,))


def new(name: str, kind: str = "head", *arguments: object) -> Result:
    return mtframe("plugins", "new", name, "--kind", kind, *arguments)


@pytest.mark.parametrize("kind", KIND_BY_KIND)
def test_a_stranger_s_package_from_nothing_to_a_trained_model(kind: str, scenes: Path, tmp_path: Path) -> None:
    fresh, name = Fresh(tmp_path / "env"), f"kite-{kind}"
    fresh.run(f"mtframe plugins new {name} --kind {kind}", tmp_path)
    folder = tmp_path / name
    blocks = bash_blocks(folder / "README.md")
    fresh.run(blocks["Publish"], folder)
    fresh.run("python -m pip install --no-deps dist/*.whl", folder)
    assert re.search(rf"^{kind} +{name} +{name} +0\.1\.0$", fresh.run(f"mtframe plugins list {kind}", folder), re.M)
    assert "passed" in fresh.run(blocks["Test"], folder)

    (folder / "data").symlink_to(scenes)
    fresh.run(blocks["Try"].rpartition("&&")[2], folder)
    run = folder / "runs" / "recipe"
    assert name in (run / "recipe.yaml").read_text(encoding="utf-8")
    assert json.loads((run / "environment.json").read_text(encoding="utf-8"))["distributions"][name] == "0.1.0"
    file, shown = TRACES.get(kind, ("recipe.yaml", name))
    assert shown.encode() in (run / file).read_bytes()
    assert_learned(run / "metrics.csv")


def assert_learned(file: Path) -> None:
    """Every loss of a run is lower at its end than it was in the beginning."""
    first, *_, last = csv.DictReader(file.read_text(encoding="utf-8").splitlines())
    losses = [column for column in first if "/" in column]
    assert losses
    assert all(float(last[loss]) < float(first[loss]) for loss in losses), (first, last)


def test_the_readme_s_commands_run_as_they_stand(tmp_path: Path) -> None:
    fresh = Fresh(tmp_path / "env")
    said = fresh.run("mtframe plugins new kite --kind preset", tmp_path)
    folder = tmp_path / "kite"
    blocks = bash_blocks(folder / "README.md")
    assert list(blocks) == ["Install", "Try", "Test", "Publish"]
    for command in blocks.values():
        fresh.run(command, folder)
    file, shown = TRACES["preset"]
    assert shown in (folder / "runs" / "recipe" / file).read_text(encoding="utf-8")
    assert [wheel.name for wheel in (folder / "dist").iterdir()] == ["kite-0.1.0-py3-none-any.whl"]
    assert said.splitlines() == [
        "wrote kite. Install it, train with it, test it:",
        *(f"  {command.strip()}" for command in ("cd kite && " + blocks["Install"], blocks["Try"], blocks["Test"])),
    ]


def test_the_workflow_runs_what_the_readme_says(packages: Path) -> None:
    workflow = yaml.safe_load((packages / "head" / ".github" / "workflows" / "test.yml").read_text(encoding="utf-8"))
    job = workflow["jobs"]["test"]
    commands = [step["run"] for step in job["steps"] if "run" in step]
    blocks = {heading: block.strip() for heading, block in bash_blocks(packages / "head" / "README.md").items()}
    torch, install, *checks = commands
    assert torch.startswith("python -m pip install torch torchvision --index-url https://download.pytorch.org/whl/cpu")
    assert install == blocks["Install"].replace("[test]", "[test,dev]")
    assert checks == ["ruff check .", "ruff format --check .", "mypy", blocks["Test"], blocks["Try"]]
    assert job["steps"][1]["with"]["python-version"] == "${{ matrix.python }}"
    supported = SpecifierSet(PROJECT["project"]["requires-python"])
    assert all(supported.contains(f"{python}.0") for python in job["strategy"]["matrix"]["python"])
    hooks = yaml.safe_load((packages / "head" / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"][0][
        "hooks"
    ]
    assert [hook["id"] for hook in hooks] == ["ruff", "ruff-format", "mypy"]


def test_packages_are_complete_and_say_what_they_need(packages: Path) -> None:
    for kind in KINDS:
        folder = packages / kind
        assert {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()} == {
            "pyproject.toml", "README.md", "LICENSE", "recipe.yaml", ".gitignore", ".pre-commit-config.yaml",
            ".github/workflows/test.yml", "tests/test_contract.py", f"src/kite_{kind}/__init__.py",
            *(f"src/kite_{kind}/{module}.py" for module in modules(kind)), f"src/kite_{kind}/py.typed",
        }  # fmt: skip
        project = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        offered = project["entry-points"]
        assert all(list(named) == [f"kite-{kind}"] for named in offered.values())
        if kind == "target":
            assert list(offered) == [f"mtframe.{module}".replace("presets", "preset") for module in modules(kind)]
            assert offered["mtframe.target"] == {"kite-target": "kite_target.target:KiteTarget"}
        else:
            assert offered == {
                f"mtframe.{kind}": {f"kite-{kind}": f"kite_{kind}.{modules(kind)[0]}:Kite{kind.title()}"}
            }
        assert project["dependencies"] == [requirement(__version__)]
        assert PROJECT["project"]["requires-python"].startswith(project["requires-python"])
        contract = (folder / "tests" / "test_contract.py").read_text(encoding="utf-8")
        assert [line for line in contract.splitlines() if line] == [
            "from mtframe.testing import conformance", f'test_contract = conformance("kite-{kind}")',
        ]  # fmt: skip
        licence = (folder / "LICENSE").read_text(encoding="utf-8")
        assert re.search(rf"^Copyright \(c\) 20\d\d the authors of kite-{kind}$", licence, re.M)


@needs("ruff")
def test_packages_pass_the_linter_with_the_project_s_rules(packages: Path) -> None:
    write_package("a-rather-long-name-of-a-small-plugin", "metric", packages / "long")
    for kind in (*KINDS, "long"):
        ruff = tomllib.loads((packages / kind / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["ruff"]
        assert ruff["lint"]["select"] == PROJECT["tool"]["ruff"]["lint"]["select"]
        assert ruff["line-length"] == PROJECT["tool"]["ruff"]["line-length"]
        for command in (["check"], ["format", "--check", "--diff"]):
            run_tool([sys.executable, "-m", "ruff", *command, "--no-cache", "."], packages / kind)


@needs("mypy")
@pytest.mark.slow
def test_packages_pass_the_type_checker(packages: Path, tmp_path: Path) -> None:
    for kind in KINDS:
        assert tomllib.loads((packages / kind / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["mypy"]["strict"]
        # An editable mtframe is found by an import hook, of which mypy knows nothing; of an installed one it is silent.
        command = [sys.executable, "-m", "mypy", "--follow-imports=silent", "--cache-dir", str(tmp_path)]
        run_tool(command, packages / kind, MYPYPATH=str(ROOT))


def run_tool(command: list[str], cwd: Path, **environment: str) -> None:
    done = subprocess.run(
        command, cwd=cwd, env=os.environ | environment, capture_output=True, encoding="utf-8", check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_kinds_offered_are_those_there_are() -> None:
    text = " ".join(mtframe("plugins", "new", "--help").out.split())
    assert f"What it is to be: {', '.join(KINDS)}." in text
    assert {path.name for path in TEMPLATES.iterdir() if path.is_dir()} - {"common", "__pycache__"} == set(KINDS)


def test_the_wheel_of_mtframe_has_the_templates(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", str(tmp_path)]
    run_tool([*command, str(ROOT)], tmp_path)
    (wheel,) = tmp_path.glob("mtframe-*.whl")
    shipped = set(zipfile.ZipFile(wheel).namelist())
    templates = {path.relative_to(ROOT).as_posix() for path in TEMPLATES.rglob("*.tmpl")}
    assert len(templates) > 20
    assert not templates - shipped


def test_it_imports_no_torch_and_no_plugin(here: Path) -> None:
    imported = imported_by(RUN.format(arguments=["plugins", "new", "kite", "--kind", "loss"]))
    assert (here / "kite" / "pyproject.toml").is_file()
    assert not imported & HEAVY
    assert not [name for name in imported if name.startswith("mtframe_")]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("kite", "hed"), "no kind 'hed'; did you mean 'head'?"),
        (("kite", "neck"), f"no kind 'neck'; the kinds are {', '.join(KINDS)}"),
        (("-kite",), "NAME: expected a distribution's name, of letters, digits, '-', '_' and '.', with a letter or a "
                     "digit at both ends, got '-kite'"),
        (("my kite",), "got 'my kite'"),
        (("",), "got ''"),
        (("drache/n",), "got 'drache/n'"),
        (("kité",), "got 'kité'"),
        (("3d-head",), "NAME: the package's name '3d_head' would be no name for Python; choose another name, as in "
                       "my-3d-head"),
        (("class",), "NAME: the package's name 'class' would be no name for Python"),
        (("null",), "NAME: 'null' would be no text in a recipe; choose another name, as in my-null"),
        (("Dense",), f"NAME: there is a head 'dense' already, of mtframe {__version__}; choose another name"),
        (("json",), "NAME: there is a module 'json' already, which the package's name would hide; choose another name, "
                    "as in my-json"),
        (("torch",), f"NAME: there is a distribution 'torch' {version('torch')} already"),
        (("Pillow",), f"NAME: there is a distribution 'pillow' {version('pillow')} already, which the package would "
                      "replace; choose another name"),
        (("mtframe.face",), "NAME: there is a module 'mtframe_face' already"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)  # fmt: skip
def test_a_mistake_is_one_message_and_writes_nothing(here: Path, arguments: tuple[str, ...], message: str) -> None:
    name, kind = (*arguments, "head")[:2]
    result = mtframe("plugins", "new", "--kind", kind, "--", name)
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith("error: ")
    assert message in result.err
    assert result.err.count("\n") == 1
    assert not list(here.iterdir())


def test_a_name_of_one_kind_is_free_for_another(here: Path) -> None:
    assert new("dense", "loss").code == 0


def test_a_folder_that_holds_something_is_left_alone(here: Path) -> None:
    (here / "kite").mkdir()
    (here / "kite" / "notes.txt").write_text("mine", encoding="utf-8")
    (here / "file").write_text("mine", encoding="utf-8")
    result = new("kite")
    assert (result.code, result.err) == (
        2, "error: --out: kite already exists and is not empty; choose another folder\n"
    )  # fmt: skip
    assert new("kite", "head", "--out", "file").err.startswith("error: --out: file already exists")
    assert (
        new("kite", "head", "--out", "file/kite").err == "error: --out: file/kite cannot be written (Not a directory)\n"
    )
    assert {path.name for path in here.rglob("*")} == {"kite", "notes.txt", "file"}


@pytest.mark.parametrize("exists", [False, True], ids=["new", "empty"])
def test_a_full_disk_leaves_nothing_half_written(here: Path, monkeypatch: pytest.MonkeyPatch, exists: bool) -> None:
    if exists:
        (here / "kite").mkdir()
    fill(monkeypatch, after=3)
    result = new("kite")
    assert (result.code, result.err) == (2, "error: --out: kite cannot be written (No space left on device)\n")
    assert [path.name for path in here.rglob("*")] == (["kite"] if exists else [])


def test_it_is_written_where_one_says(here: Path) -> None:
    assert new("Kite_2.Head", "head", "--out", "my plugins/kite").out.splitlines()[1] == (
        "  cd 'my plugins/kite' && python -m pip install -e '.[test]'"
    )
    project = tomllib.loads((here / "my plugins" / "kite" / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["entry-points"] == {"mtframe.head": {"kite-2-head": "kite_2_head.head:Kite2Head"}}
    assert [path.name for path in (here / "my plugins").iterdir()] == ["kite"]


def test_an_empty_folder_that_one_is_in_is_filled(here: Path) -> None:
    inode = here.stat().st_ino
    assert new("kite", "head", "--out", ".").code == 0
    assert here.stat().st_ino == inode
    assert (here / "src" / "kite" / "head.py").is_file()
    assert [path.name for path in here.parent.iterdir()] == [here.name]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["tensor", "sample", "any", "mapping", "data-info", "feature-spec", "none", "f"])
def test_a_class_is_not_called_as_what_its_module_uses(kind: str, name: str, tmp_path: Path) -> None:
    folder, _ = write_package(name, kind, tmp_path / name)
    for module in modules(kind):
        (file,) = folder.rglob(f"{module}.py")
        tree = ast.parse(file.read_text(encoding="utf-8"))
        imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom | ast.Import)]
        imported = {alias.asname or alias.name for node in imports for alias in node.names}
        defined = {node.name for node in ast.walk(tree) if isinstance(node, ast.ClassDef)}
        assert defined
        assert not imported & defined


@pytest.mark.parametrize(
    ("running", "expected"),
    [
        ("0.1.0", "mtframe>=0.1,<0.2"),
        ("0.9.3", "mtframe>=0.9,<0.10"),
        ("1.4.2", "mtframe>=1.4,<2"),
        ("0.2.0.dev3", "mtframe>=0.2.0.dev3,<0.3"),
        ("2.0.0rc1", "mtframe>=2.0.0rc1,<3"),
        ("0.3.1+local.7", "mtframe>=0.3,<0.4"),
    ],
)
def test_the_bound_takes_the_running_version_and_ends_before_the_next_that_may_break(
    running: str, expected: str
) -> None:
    assert requirement(running) == expected
    assert SpecifierSet(expected.removeprefix("mtframe")).contains(running, prereleases=True)


# It waits for the disk.
@settings(deadline=None)
@given(st.from_regex(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,30}[A-Za-z0-9])?", fullmatch=True), st.sampled_from(list(KINDS)))
def test_any_name_is_refused_or_gives_a_package_that_hangs_together(name: str, kind: str) -> None:
    with tempfile.TemporaryDirectory() as root:
        try:
            folder, _ = write_package(name, kind, Path(root, "written"))
        except RecipeError:
            assert not list(Path(root).iterdir())
            return
        project = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        ((entry, value),) = project["entry-points"][f"mtframe.{kind}"].items()
        place, _, class_name = value.partition(":")
        package, _, module = place.partition(".")
        assert entry == project["name"] == canonicalize_name(name)
        # Nothing but a docstring: no second place that names the component, and nothing private.
        assert len(ast.parse((folder / "src" / package / "__init__.py").read_text(encoding="utf-8")).body) == 1
        assert not module.startswith("_")
        tree = ast.parse((folder / "src" / package / f"{module}.py").read_text(encoding="utf-8"))
        assert class_name in [node.name for node in tree.body if isinstance(node, ast.ClassDef)]
        assert f"'{entry}'" in str(parse_yaml((folder / "recipe.yaml").read_text(encoding="utf-8"), "recipe.yaml"))
