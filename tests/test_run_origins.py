"""A run outlives its plugins: it says what to install, and what it keeps itself needs nothing."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from command import mtframe
from fake_dist import make_dist
from mtframe import registry
from mtframe.recipe import Recipe
from mtframe.run import RunFolder
from mtframe.yaml import dump_yaml, parse_yaml
from toy import toy_recipe

TOY = Path(__file__).with_name("toy.py")

# One head a version: what was `bias` is `offset` in 2.0, and 3.0 is of another shape.
HEAD = """
from toy import ToyHead

class Head(ToyHead):
    def __init__(self, features, info, *, {option}: bool = True) -> None:
        super().__init__(features, info, bias={option})
"""
MIGRATE = """
    @staticmethod
    def migrate(options, version):
        assert version == "1.0"
        return {"offset" if name == "bias" else name: value for name, value in options.items()}
"""
LARGER = (
    HEAD
    + """
        self.linear = __import__("torch").nn.Linear(features[-1].channels, 3)
"""
)


class Site:
    """A folder like site-packages, in which `head-kit` is of one version at a time."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def install(self, version: str | None, source: str = "", name: str = "head-kit") -> None:
        for found in self.folder.glob(f"{name.replace('-', '_')}*"):
            shutil.rmtree(found) if found.is_dir() else found.unlink()
        module = name.replace("-", "_")
        if version:
            make_dist(self.folder, name, {"mtframe.head": {"kit": f"{module}:Head"}}, {module: source}, version)
        sys.modules.pop(module, None)
        registry.installed.cache_clear()
        sys.path_importer_cache.clear()


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    yield Site(folder)
    for module in ("head_kit", "other_kit"):
        sys.modules.pop(module, None)
    registry.installed.cache_clear()


def trained(head: Any, **more: Any) -> None:
    """Trains `recipe.yaml` into `run`, with that head."""
    plain = toy_recipe({"one": {"head": head}}, steps=2)
    Path("recipe.yaml").write_text(dump_yaml({**plain, **more}), encoding="utf-8")
    result = mtframe("train", "recipe.yaml", "--out", "run")
    assert (result.code, result.err) == (0, ""), result


def test_a_missing_plugin_is_named_with_the_version_to_install(here: Path, site: Site) -> None:
    site.install("1.0", HEAD.format(option="bias"))
    trained({"name": "kit", "bias": False})
    kept = json.loads(Path("run/environment.json").read_text(encoding="utf-8"))["components"]["tasks.one.head"]
    assert kept == {"kind": "head", "name": "kit", "distribution": "head-kit", "version": "1.0"}
    site.install(None)
    for command in (["evaluate", "run"], ["predict", "run", "recipe.yaml"], ["train", "--resume", "run"]):
        result = mtframe(*command)
        assert result.code == 2
        assert "tasks.one.head: no head 'kit'" in result.err
        assert "trained with head-kit 1.0, which is not installed. Install it with: pip install head-kit==1.0" in (
            result.err
        )


def test_another_version_is_told_and_works_where_it_can(
    here: Path, site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    site.install("1.0", HEAD.format(option="bias"))
    trained({"name": "kit", "bias": False})
    site.install("1.1", HEAD.format(option="bias"))
    result = mtframe("evaluate", "run", "--json")
    assert result.code == 0
    assert "The run was trained with head-kit 1.0, and 1.1 is installed. For the same one: pip install" in caplog.text
    site.install("2.0", HEAD.format(option="offset"))
    result = mtframe("evaluate", "run")
    assert result.code == 2
    assert "tasks.one.head.bias: unknown option" in result.err
    assert "pip install head-kit==1.0" in result.err
    site.install("3.0", LARGER.format(option="bias"))
    result = mtframe("evaluate", "run")
    assert result.code == 1
    assert "a checkpoint of another architecture" in result.err
    assert "pip install head-kit==1.0" in result.err


def test_a_component_migrates_its_own_older_options(here: Path, site: Site) -> None:
    site.install("1.0", HEAD.format(option="bias"))
    trained({"name": "kit", "bias": False})
    before = mtframe("evaluate", "run", "--json").out
    site.install("2.0", HEAD.format(option="offset") + MIGRATE)
    assert mtframe("evaluate", "run", "--json").out == before
    recipe = RunFolder.open("run").recipe(["tasks.one.head.offset=true"])
    # Overrides are in today's terms.
    assert recipe.tasks["one"].head.options == {"offset": True}
    site.install("2.1", HEAD.format(option="offset") + MIGRATE.replace('assert version == "1.0"', "raise KeyError(1)"))
    result = mtframe("evaluate", "run")
    assert result.code == 2
    assert "tasks.one.head: 'kit' cannot bring its options of version 1.0 up to date: KeyError: 1" in result.err


def test_a_name_that_others_offer_too_by_now_means_what_it_meant(here: Path, site: Site) -> None:
    site.install("1.0", HEAD.format(option="bias"))
    trained("kit")
    site.install("5.0", "class Head: pass", name="other-kit")
    assert mtframe("evaluate", "run").code == 0
    result = mtframe("train", "recipe.yaml", "--out", "again")
    assert result.code == 2
    assert "'kit@head-kit' or 'kit@other-kit'" in result.err


def test_balancer_and_hooks_are_needed_to_go_on_only(here: Path, site: Site) -> None:
    source = "class Quiet:\n    from mtframe.hooks import hookimpl\n    @hookimpl\n    def step_ended(self): pass\n"
    entries = {"mtframe.hooks": {"quiet": "quiet_kit:Quiet"}}
    make_dist(site.folder, "quiet-kit", entries, {"quiet_kit": source}, "0.3")
    registry.installed.cache_clear()
    trained(f"{TOY}:ToyHead", hooks=["csv-logger", "quiet"])
    sys.modules.pop("quiet_kit")
    site.install(None, name="quiet-kit")
    assert (mtframe("evaluate", "run").code, mtframe("evaluate", "run").err) == (0, "")
    result = mtframe("train", "--resume", "run")
    assert result.code == 2
    assert "hooks.1: no hooks 'quiet'" in result.err
    assert "pip install quiet-kit==0.3" in result.err


def test_files_of_components_are_kept_in_the_run(here: Path) -> None:
    # The last has the name that the second one's copy gets.
    files = ("a/parts.py", "b/parts.py", "c/parts_2.py")
    for file in map(Path, files):
        file.parent.mkdir()
        file.write_text(TOY.read_text(encoding="utf-8") + f"\nSHADE = {str(file)!r}\n", encoding="utf-8")
    heads = {task: {"head": f"{file}:ToyHead"} for task, file in zip(("one", "two", "three"), files, strict=True)}
    plain = toy_recipe(heads, steps=2)
    Path("recipe.yaml").write_text(dump_yaml(plain), encoding="utf-8")
    assert mtframe("train", "recipe.yaml", "--out", "run").code == 0
    kept = parse_yaml(Path("run/recipe.yaml").read_text(encoding="utf-8"), "recipe")["tasks"]
    assert [kept[task]["head"] for task in heads] == [
        "./components/parts.py:ToyHead",
        "./components/parts_2.py:ToyHead",
        "./components/parts_2_2.py:ToyHead",
    ]
    for file, name in zip(files, ("parts", "parts_2", "parts_2_2"), strict=True):
        assert Path("run/components", f"{name}.py").read_text(encoding="utf-8") == Path(file).read_text(
            encoding="utf-8"
        )
    before = mtframe("evaluate", "run", "--json").out
    # Elsewhere, without the files that it was trained with.
    for file in files:
        shutil.rmtree(Path(file).parent)
    Path("run").rename("moved")
    assert mtframe("evaluate", "moved", "--json").out == before


def test_a_file_that_does_not_stand_alone_is_refused_before_training(here: Path) -> None:
    """A run keeps the file, not what lies beside it."""
    source = TOY.read_text(encoding="utf-8") + "\nBESIDE = Path(__file__).with_name('n.txt').read_text()\n"
    Path("parts.py").write_text(source, encoding="utf-8")
    Path("n.txt").write_text("5", encoding="utf-8")
    Path("recipe.yaml").write_text(
        dump_yaml(toy_recipe({"one": {"head": "./parts.py:ToyHead"}}, steps=2)), encoding="utf-8"
    )
    result = mtframe("train", "recipe.yaml", "--out", "run")
    assert result.code == 2
    assert "tasks.one.head: a run keeps a copy of the file alone, and this copy cannot be used" in result.err
    assert "components/n.txt" in result.err
    assert not Path("run").exists()
    Path("helper.py").write_text("K = 1\n", encoding="utf-8")
    Path("parts.py").write_text(
        "from helper import K\n" + TOY.read_text(encoding="utf-8").replace("from __future__", "#"), encoding="utf-8"
    )
    result = mtframe("train", "recipe.yaml", "--out", "again")
    assert "what lies beside it is not found" in result.err


def test_presets_are_not_asked_again(here: Path, site: Site) -> None:
    """A preset of today must not leak its options into what was trained yesterday, nor be missed when it is gone."""
    preset = "class Preset:\n    head = {{'name': 'kit', 'bias': {bias}}}\n"
    entries = {"mtframe.preset": {"preset": "preset_kit:Preset"}}
    site.install("1.0", HEAD.format(option="bias"))
    make_dist(site.folder, "preset-kit", entries, {"preset_kit": preset.format(bias=False)})
    registry.installed.cache_clear()
    plain = toy_recipe({"one": {"preset": "preset"}}, steps=2)
    del plain["tasks"]["one"]["head"]
    Path("recipe.yaml").write_text(dump_yaml(plain), encoding="utf-8")
    assert mtframe("train", "recipe.yaml", "--out", "run").code == 0
    known = json.loads(Path("run/environment.json").read_text(encoding="utf-8"))
    assert known["components"]["tasks.one.preset"]["distribution"] == "preset-kit"
    assert known["distributions"]["preset-kit"] == "1.2.3"
    sys.modules.pop("preset_kit")
    site.install(None, name="preset-kit")
    recipe = RunFolder.open("run").recipe()
    assert recipe.tasks["one"].head.options == {"bias": False}
    assert mtframe("evaluate", "run").code == 0


def test_a_preset_means_its_own_parts_whoever_else_offers_their_names(site: Site) -> None:
    """Somebody's `dense`, `network` and `csv-logger` must not take down trainings that name none of theirs."""
    taken = {"mtframe.head": {"dense": "x_kit:A"}, "mtframe.sharing": {"network": "x_kit:A"}}
    taken |= {"mtframe.hooks": {"csv-logger": "x_kit:A"}, "mtframe.balancer": {"sum": "x_kit:A"}}
    make_dist(site.folder, "x-kit", taken, {"x_kit": "raise RuntimeError('never imported')"})
    registry.installed.cache_clear()
    plain = {"backbone": "tutorial", "tasks": {"o": {"preset": "object-detection", "dataset": {"root": "r"}}}}
    recipe = Recipe.from_plain(plain)
    assert {part.resolved.origin.dist for part in recipe.check().parts.values()} == {"mtframe"}
    # So does whoever writes the name; the other one is there for those who say so.
    plain["tasks"]["o"]["head"] = {"name": "dense", "width": 32}
    assert Recipe.from_plain(plain).check().parts["tasks.o.head"].resolved.origin.dist == "mtframe"
    with pytest.raises(registry.PluginError, match="never imported"):
        registry.resolve("head", "dense@x-kit")


def test_a_strangers_preset_means_his_own_parts(site: Site) -> None:
    source = "class Head:\n    target = 'boxes'\n    def __init__(self, features, info): pass\n"
    source += "class Preset:\n    head = 'dense'\n    loss = 'detection'\n    metrics = ('coco-ap',)\n"
    source += "    dataset = 'coco'\n    transform = 'letterbox'\n    size = 64\n    batch_size = 2\n"
    entries = {"mtframe.head": {"dense": "y_kit:Head"}, "mtframe.preset": {"mine": "y_kit:Preset"}}
    make_dist(site.folder, "y-kit", entries, {"y_kit": source})
    registry.installed.cache_clear()
    task = {"preset": "mine", "dataset": {"root": "r"}}
    found = Recipe.from_plain({"backbone": "tutorial", "tasks": {"o": task}}).check().parts
    assert (found["tasks.o.head"].resolved.name, found["tasks.o.loss"].resolved.origin.dist) == (
        "dense@y-kit",
        "mtframe",
    )
    sys.modules.pop("y_kit")
