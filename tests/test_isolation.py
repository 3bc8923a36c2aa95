"""A broken plugin is marked, explained by the doctor, and takes down nobody who does not use it."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from command import mtframe
from fake_dist import make_dist
from mtframe import registry
from mtframe.yaml import dump_yaml
from toy import toy_recipe

GOOD = "class Part:\n    '''A head.'''\n    def __init__(self, features, *, width: int = 1): pass\n"
HOOK = """
from mtframe.hooks import hookimpl

class Part:
    @hookimpl
    def step_ended(self, step):
        raise RuntimeError(f"no room at {step}")
"""


@dataclass
class Case:
    """A broken plugin.

    Attributes:
        source: Its module.
        marked: What a listing says before anything was imported; empty if metadata show nothing.
        verdict: What the doctor says.
        advice: What it says to do.
        named: What naming the component says.
        learned: What a listing says after the doctor has looked.
        text: Its entry points as they are written, in place of `entries`.
    """

    source: str
    verdict: str
    advice: str
    named: str = ""
    marked: str = ""
    learned: str = ""
    entries: dict[str, dict[str, str]] = field(default_factory=lambda: {"mtframe.head": {"part": "bad_kit:Part"}})
    requires: tuple[str, ...] = ()
    text: str = ""


CASES = {
    "a module it needs is missing": Case(
        "import no_such_thing",
        "PROBLEM  head 'part': cannot be imported: ModuleNotFoundError: No module named 'no_such_thing'",
        "pip install no_such_thing",
        named="ModuleNotFoundError: No module named 'no_such_thing'",
        learned="cannot be imported: ModuleNotFoundError",
    ),
    "it raises": Case(
        "raise OSError('no licence')",
        "PROBLEM  head 'part': cannot be imported: OSError: no licence",
        "tell its authors",
        named="OSError: no licence",
        learned="cannot be imported: OSError",
    ),
    "it exits": Case(
        "import sys; sys.exit(3)",
        "PROBLEM  head 'part': cannot be imported: SystemExit: 3",
        "tell its authors",
        named="SystemExit: 3",
        learned="cannot be imported: SystemExit",
    ),
    "it takes long": Case(
        f"import time; time.sleep(0.5 if 'pytest' in __import__('sys').modules else 30)\n{GOOD}",
        "PROBLEM  head 'part': cannot be imported: it was not imported within 4 s",
        "tell its authors",
        learned="cannot be imported: it was not imported within 4 s",
    ),
    "it prints": Case(
        f"print('welcome')\n{GOOD}",
        "PROBLEM  head 'part': prints 'welcome'",
        "tell its authors",
        learned="prints 'welcome'",
    ),
    "its entry point has no form": Case(
        "",
        "PROBLEM  head 'part': expected 'package.module:Class', got 'just words'",
        "tell its authors",
        named="cannot be imported from 'just words'",
        marked="broken: expected 'package.module:Class', got 'just words'",
        entries={"mtframe.head": {"part": "just words"}},
    ),
    "its entry points are no list": Case(
        "",
        "PROBLEM  head 'part': expected 'package.module:Class', got ''",
        "tell its authors",
        marked="broken: expected 'package.module:Class', got ''",
        text="[mtframe.head]\npart\n[what\n",
    ),
    "its module is not there": Case(
        "",
        "PROBLEM  head 'part': no module named 'gone_kit'",
        "tell its authors",
        named="No module named 'gone_kit'",
        marked="broken: no module named 'gone_kit'",
        entries={"mtframe.head": {"part": "gone_kit:Part"}},
    ),
    "it needs another mtframe": Case(
        GOOD,
        "PROBLEM  head 'part': bad-kit 1.2.3 needs mtframe>=9, and this is mtframe",
        "pip install --upgrade bad-kit",
        named="bad-kit 1.2.3 needs mtframe>=9",
        marked="broken: bad-kit 1.2.3 needs mtframe>=9",
        requires=("mtframe>=9",),
    ),
    "it needs what is not installed": Case(
        GOOD,
        "PROBLEM  requires no-such-thing>=2, and it is not installed",
        "pip install 'no-such-thing>=2'",
        requires=("no-such-thing>=2",),
    ),
    "its options cannot be read": Case(
        "class Part:\n    def __init__(self, features, stride, *, width: int = 1): pass\n",
        "parameter 'stride' stands before '*', where the framework wires",
        "tell its authors",
        named="parameter 'stride' stands before '*'",
        learned="parameter 'stride' stands before '*'",
    ),
    "it takes a name": Case(
        GOOD,
        "note     head 'embedding': offered by mtframe too; a recipe has to say 'embedding@bad-kit'",
        "",
        marked="name taken: write embedding@bad-kit",
        entries={"mtframe.head": {"embedding": "bad_kit:Part"}},
    ),
    "it takes names that every recipe has": Case(
        "raise OSError('no licence')",
        "PROBLEM  sharing 'network': cannot be imported: OSError: no licence",
        "tell its authors",
        marked="name taken: write network@bad-kit",
        entries={"mtframe.sharing": {"network": "bad_kit:Part"}},
    ),
    "its requirements cannot be read": Case(
        GOOD,
        "PROBLEM  head 'part': bad-kit 1.2.3 needs \"mtframe>=0.1; platform_system ~= 'Linux'\" (Undefined",
        "pip install --upgrade bad-kit",
        marked="broken: bad-kit 1.2.3 needs",
        requires=("mtframe>=0.1; platform_system ~= 'Linux'",),
    ),
    "its other requirements cannot be read": Case(
        GOOD,
        "PROBLEM  requires \"numpy; platform_system ~= 'Linux'\", which cannot be read: UndefinedComparison",
        "tell its authors",
        requires=("numpy; platform_system ~= 'Linux'",),
    ),
    "it raises what is no Exception, and cannot be printed": Case(
        "class Odd(BaseException):\n    def __str__(self): raise ValueError\nraise Odd",
        "PROBLEM  head 'part': cannot be imported: ",
        "tell its authors",
        named="cannot be imported from 'bad_kit:Part': Odd",
        learned="cannot be imported",
    ),
    "its name cannot be written": Case(
        GOOD,
        "PROBLEM  head 'part/a': a name with '/' in it cannot be written in a recipe",
        "tell its authors",
        marked="broken: a name with '/' in it",
        entries={"mtframe.head": {"part/a": "bad_kit:Part"}},
    ),
    "its constructor exits": Case(
        "import sys\nclass Part:\n    def __init__(self, features): sys.exit(0)\n",
        "ok       1 component imports silently",
        "",
        named="tasks.one.head: bad_kit:Part raised SystemExit: 0 (bad_kit.py:3 in __init__)",
    ),
    "its target is no name": Case(
        "class Part:\n    target = 5\n    def __init__(self, features): pass\n",
        "ok       1 component imports silently",
        "",
        named="bad_kit:Part: target must be names, got 5",
    ),
}


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setenv("MTFRAME_CACHE", str(tmp_path / "cache"))
    registry.installed.cache_clear()
    yield folder
    sys.modules.pop("bad_kit", None)
    registry.installed.cache_clear()


def install(site: Path, case: Case) -> None:
    make_dist(site, "bad-kit", case.entries, {"bad_kit": case.source}, requires=case.requires)
    if case.text:
        (site / "bad_kit-1.2.3.dist-info" / "entry_points.txt").write_text(case.text, encoding="utf-8")


def listed() -> str:
    """The row of the broken plugin, with single spaces."""
    result = mtframe("plugins", "list")
    assert (result.code, result.err) == (0, "")
    (row,) = [line for line in result.out.splitlines() if " bad-kit " in line]
    return re.sub(" +", " ", row)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_who_does_not_use_it_does_not_notice(here: Path, site: Path, case: Case) -> None:
    install(site, case)
    Path("recipe.yaml").write_text(dump_yaml(toy_recipe(steps=1)), encoding="utf-8")
    assert mtframe("--help").code == 0
    assert case.marked in listed()
    for command in (["train", "recipe.yaml", "--out", "run"], ["evaluate", "run"], ["backbones", "timm/resnet18"],
                    ["data", "check", "lfw", "nowhere"]):  # fmt: skip
        result = mtframe(*command)
        assert "bad" not in result.err
        assert result.code == (2 if command[0] == "data" else 0), result
    # A mistake elsewhere is told without importing it for a hint.
    result = mtframe("train", "recipe.yaml", "tasks.one.head=dense", "--out", "again")
    assert "tasks.one.head: head 'dense' works on targets of kind 'boxes'" in result.err
    assert "bad_kit" not in sys.modules


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_the_doctor_says_what_is_wrong_and_what_to_do(site: Path, case: Case) -> None:
    install(site, case)
    result = mtframe("plugins", "doctor", "Bad_Kit", "--timeout", "4")
    out = re.sub(r"\n {11}(?=\S)", " ", result.out)
    assert out.startswith("bad-kit 1.2.3\n")
    assert case.verdict in out
    assert f"What to do: {case.advice}" in out if case.advice else "What to do" not in out
    assert result.code == (1 if case.advice else 0)
    assert out.rstrip().endswith("1 problem" if case.advice else "no problems")
    assert case.learned in listed()
    if "raise" in case.source:
        # With its traceback.
        assert "bad_kit.py" in result.out
        assert ", in <module>" in result.out


@pytest.mark.parametrize("case", [case for case in CASES.values() if case.named],
                         ids=[name for name, case in CASES.items() if case.named])  # fmt: skip
def test_who_names_it_is_told_its_own_cause(here: Path, site: Path, case: Case) -> None:
    install(site, case)
    Path("recipe.yaml").write_text(dump_yaml(toy_recipe({"one": {"head": "part"}}, steps=1)), encoding="utf-8")
    result = mtframe("train", "recipe.yaml", "--out", "run")
    assert result.code == 2
    assert case.named in result.err
    assert not Path("run").exists()


def test_a_hook_that_raises_is_marked_once_it_has(here: Path, site: Path) -> None:
    entries = {"mtframe.hooks": {"watch": "bad_kit:Part"}}
    make_dist(site, "bad-kit", entries, {"bad_kit": HOOK})
    Path("recipe.yaml").write_text(dump_yaml(toy_recipe(steps=2)), encoding="utf-8")
    assert mtframe("train", "recipe.yaml", "--out", "quiet").err == ""
    assert listed() == "hooks watch bad-kit 1.2.3"
    result = mtframe("train", "recipe.yaml", "--with", "watch", "--out", "run")
    assert result.code == 0
    why = "step_ended raised RuntimeError: no room at 1"
    assert result.err == f"warning: hooks.1 (watch) was disabled: {why}; see run/log.txt\n"
    log = Path("run/log.txt").read_text(encoding="utf-8")
    assert f"hooks.1 (watch) is disabled: its {why}" in log
    assert 'bad_kit.py", line 7, in step_ended' in log
    assert f"hooks watch bad-kit 1.2.3 its {why} (20" in listed()
    doctor = mtframe("plugins", "doctor", "bad-kit")
    assert f"note     hooks 'watch': when it was last used, its {why} (20" in doctor.out
    with pytest.raises(RuntimeError, match="no room at 1"):
        mtframe("train", "recipe.yaml", "--with", "watch", "--strict", "--out", "strict")


def test_an_observer_that_cannot_even_be_told_of_ends_no_training(here: Path, site: Path) -> None:
    odd = "class Odd(BaseException):\n    def __str__(self): raise ValueError\n"
    source = odd + HOOK.replace('RuntimeError(f"no room at {step}")', "Odd")
    make_dist(site, "bad-kit", {"mtframe.hooks": {"watch": "bad_kit:Part"}}, {"bad_kit": source})
    Path("recipe.yaml").write_text(dump_yaml(toy_recipe(steps=2)), encoding="utf-8")
    result = mtframe("train", "recipe.yaml", "--with", "watch", "--out", "run")
    assert (result.code, result.err.count("was disabled: step_ended raised Odd")) == (0, 1)


def test_an_observer_cannot_change_what_it_sees(here: Path, site: Path) -> None:
    """Scores that it clears would move the best checkpoint, and a recipe without tasks trains nothing."""
    source = "from mtframe.hooks import hookimpl\nclass Part:\n" + "".join(
        f"    @hookimpl\n    def {hook}(self, {name}):\n        {name}{what}.clear()\n"
        for hook, name, what in (
            ("recipe_read", "recipe", ".tasks"), ("model_assembled", "recipe", ".tasks"),
            ("evaluation_ended", "scores", ""), ("metrics_logged", "values", ""),
        )
    )  # fmt: skip
    make_dist(site, "bad-kit", {"mtframe.hooks": {"watch": "bad_kit:Part"}}, {"bad_kit": source})
    plain = toy_recipe(steps=6, evaluate_every=0.25)
    for name, hooks in (("plain", ["csv-logger"]), ("watched", ["csv-logger", "watch"])):
        Path("recipe.yaml").write_text(dump_yaml({**plain, "hooks": hooks}), encoding="utf-8")
        assert mtframe("train", "recipe.yaml", "--out", name).code == 0
    assert Path("watched/metrics.json").read_text(encoding="utf-8") == Path("plain/metrics.json").read_text(
        encoding="utf-8"
    )


def test_two_versions_of_a_distribution_on_the_path(here: Path, site: Path) -> None:
    entries = {"mtframe.head": {"part": "bad_kit:Part"}}
    for version in ("1.0", "2.0"):
        make_dist(site, "bad-kit", entries, {"bad_kit": GOOD}, version)
    assert mtframe("plugins", "list", "head").out.count(" bad-kit ") == 1
    assert mtframe("plugins", "show", "head", "part").code == 0
    result = mtframe("plugins", "doctor", "bad-kit")
    assert result.code == 1
    assert "PROBLEM  versions 1.0 and 2.0 are on the path; the first one found hides the other" in result.out


def test_a_family_that_cannot_list_its_members_is_left_out(here: Path, site: Path) -> None:
    members = "def members(cls, pattern, *, pretrained=False): raise OSError('no index')"
    source = f"class Part:\n    @classmethod\n    {members}\n"
    make_dist(site, "bad-kit", {"mtframe.backbone": {"family": "bad_kit:Part"}}, {"bad_kit": source})
    result = mtframe("backbones", "tutor*")
    assert (result.code, result.out) == (0, "tutorial\n")
    assert result.err == "left out: backbone 'family' of bad-kit 1.2.3 cannot list its members: OSError: no index\n"


def test_without_plugins(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(site, CASES["it prints"])
    # So that it is put back.
    monkeypatch.setenv("MTFRAME_PLUGINS", "bad-kit")
    assert "bad-kit" in mtframe("plugins", "list").out
    out = mtframe("--no-plugins", "plugins", "list").out
    assert "bad-kit" not in out
    assert "embedding" in out


def test_the_doctor_looks_at_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    import torchvision

    from mtframe.cli import _health

    assert [finding.good for finding in _health.environment()] == [True] * 4
    assert list(_health.requirements("mtframe")) == []

    def other_torch(*_: Any) -> None:
        raise RuntimeError("operator torchvision::nms does not exist")

    monkeypatch.setattr(torchvision.ops, "nms", other_torch)
    found = _health.environment()[1]
    assert (found.good, found.text) == (False, "torch: RuntimeError: operator torchvision::nms does not exist")
    assert found.advice.startswith("pip install --upgrade torch torchvision")
    assert "other_torch" in found.traceback


def test_a_distribution_that_the_doctor_does_not_know() -> None:
    result = mtframe("plugins", "doctor", "no-such-kit")
    assert result.code == 2
    assert "no distribution 'no-such-kit' with components; there are: mtframe" in result.err
