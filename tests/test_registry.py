"""Discovery from metadata, and what becomes of a name."""

from __future__ import annotations

import contextlib
import importlib
import sys
import threading
from pathlib import Path

import pytest

from command import mtframe
from fake_dist import make_dist, make_kit
from mtframe import __version__, registry
from mtframe._installed import quiet
from mtframe._notes import note, noted
from mtframe.errors import PluginError, RecipeError
from mtframe.registry import Component, Origin, discover, local_file, name_of, resolve, strays
from mtframe.testing import Kit

HEAD = "class Head:\n    '''Sees.\n\n    More.'''\n    def __init__(self, features, *, width: int = 1): pass\n"


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder like site-packages, first on sys.path."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    # A listing is read once a process for a sys.path; the tests fill the folder afterwards.
    registry.installed.cache_clear()
    before = set(sys.modules)
    yield folder
    registry.installed.cache_clear()
    for name in set(sys.modules) - before:
        if str(folder) in (getattr(sys.modules[name], "__file__", None) or ""):
            del sys.modules[name]


def test_discovery_reads_metadata_and_imports_nothing(site: Path) -> None:
    make_kit(site)
    found = {component.name: component for component in discover("head")}
    assert found["kite-head"] == Component("head", "kite-head", "kite-kit", "1.2.3", "kitekit:KiteHead")
    assert "kitekit" not in sys.modules
    assert found["kite-head"].summary() == ""
    assert found["kite-head"].broken is None
    assert {"kitenet", "kites"} <= {component.name for component in discover()}


def test_every_listed_kind_is_known_and_kinds_come_in_one_order(site: Path) -> None:
    make_dist(site, "odd", {"mtframe.mood": {"sad": "odd:Sad"}, "mtframe.head": {"a": "odd:A"}})
    assert "sad" not in {component.name for component in discover()}
    kinds = [component.kind for component in discover()]
    assert kinds == sorted(kinds, key=list(registry.KINDS).index)


def test_unknown_kind_is_suggested() -> None:
    with pytest.raises(RecipeError, match="no kind 'heads'; did you mean 'head'"):
        discover("heads")


def test_resolve_gives_class_and_origin(site: Path) -> None:
    make_kit(site)
    resolved = resolve("head", "kite-head")
    assert resolved.component.__name__ == "KiteHead"
    assert resolved.member is None
    assert (resolved.origin.dist, resolved.origin.version) == ("kite-kit", "1.2.3")
    assert str(resolved.origin) == "kite-kit 1.2.3"
    component = next(c for c in discover("head") if c.name == "kite-head")
    assert component.summary() == "Sees kites."


def test_family_member(site: Path) -> None:
    make_kit(site)
    resolved = resolve("backbone", "kitenet/large.a/b")
    assert (resolved.name, resolved.member) == ("kitenet/large.a/b", "large.a/b")
    assert resolve("backbone", "kitenet").member is None
    with pytest.raises(PluginError, match="'kite-head' is no family"):
        resolve("head", "kite-head/big")
    with pytest.raises(PluginError, match="no backbone 'kitenet/'"):
        resolve("backbone", "kitenet/")


def test_unknown_name_is_suggested_with_the_command_that_lists(site: Path) -> None:
    make_kit(site)
    with pytest.raises(PluginError) as error:
        resolve("head", "kite-haed")
    assert "no head 'kite-haed'; did you mean 'kite-head'?" in str(error.value)
    assert "mtframe plugins list head" in str(error.value)
    with pytest.raises(PluginError, match=r"mtframe backbones '\*resnet18\*'"):
        resolve("backbone", "resnet18")


def test_two_distributions_with_one_name(site: Path) -> None:
    make_dist(site, "one-kit", {"mtframe.head": {"twin": "one_kit:Head"}}, {"one_kit": HEAD})
    make_dist(site, "Other_Kit", {"mtframe.head": {"twin": "other_kit:Head"}}, {"other_kit": HEAD}, "4.0")
    assert [component.dist for component in discover("head") if component.name == "twin"] == [
        "Other_Kit",
        "one-kit",
    ]
    with pytest.raises(PluginError) as error:
        resolve("head", "twin")
    message = str(error.value)
    assert "offered by Other_Kit 4.0 and one-kit 1.2.3" in message
    assert "'twin@Other_Kit' or 'twin@one-kit'" in message
    assert resolve("head", "twin@one-kit").component.__module__ == "one_kit"
    # Names of distributions compare as packaging normalises them.
    assert resolve("head", "twin@other.kit").component.__module__ == "other_kit"
    with pytest.raises(PluginError, match="'twin' is not offered by 'third' but by Other_Kit and one-kit"):
        resolve("head", "twin@third")


def test_the_first_of_a_distribution_on_the_path_hides_the_others(site: Path, tmp_path: Path, monkeypatch) -> None:
    make_dist(tmp_path / "old", "kit", {"mtframe.head": {"same": "old_kit:Head"}})
    make_dist(site, "Kit", {"mtframe.head": {"same": "new_kit:Head"}}, {"new_kit": HEAD})
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path / "old")])
    assert resolve("head", "same").component.__module__ == "new_kit"


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("import no_such_thing", "ModuleNotFoundError: No module named 'no_such_thing'"),
        ("raise RuntimeError('[red]boom')", r"RuntimeError: \[red\]boom"),
        ("import sys; sys.exit(3)", "SystemExit: 3"),
        ("", "AttributeError"),
        ("Head = 3", "expected a class, got int"),
    ],
)
def test_broken_plugin_is_listed_and_names_its_cause(site: Path, source: str, said: str) -> None:
    name = f"broken_{abs(hash(source))}"
    make_dist(site, "bad-kit", {"mtframe.head": {"bad": f"{name}:Head"}}, {name: source})
    assert "bad" in {component.name for component in discover("head")}
    with pytest.raises(PluginError, match=said) as error:
        resolve("head", "bad")
    assert "bad-kit 1.2.3" in str(error.value)
    if "expected" not in said:
        assert error.value.__cause__ is not None
        assert "mtframe plugins show head bad@bad-kit" in str(error.value)


def test_what_shows_without_import_is_marked_broken(site: Path) -> None:
    make_dist(site, "bad-kit", {"mtframe.head": {"gone": "gone_module.x:Head", "odd": "just a text"}})
    broken = {component.name: component.broken for component in discover("head")}
    assert broken["gone"] == "no module named 'gone_module'"
    assert broken["odd"] == "expected 'package.module:Class', got 'just a text'"
    with pytest.raises(PluginError, match="cannot be imported from 'just a text'"):
        resolve("head", "odd")


def test_leftovers_of_an_installation_hurt_nobody(site: Path) -> None:
    (site / "half-1.0.dist-info").mkdir()
    (site / "half-1.0.dist-info" / "entry_points.txt").write_bytes(b"[mtframe.head]\nx = y:Z\n\xff = y:Z\n")
    (site / "empty-1.0.dist-info").mkdir()
    (site / "empty-1.0.dist-info" / "METADATA").write_text("", encoding="utf-8")
    make_kit(site)
    found = {component.name: component for component in discover("head")}
    assert "kite-head" in found
    assert (found["x"].dist, found["x"].version) == ("half", "1.0")
    assert found["x"].broken.startswith("its METADATA names no distribution (")
    with pytest.raises(PluginError, match="its METADATA names no distribution"):
        resolve("head", "x")


def test_what_setuptools_writes_beside_sources_is_metadata_too(site: Path) -> None:
    info = site / "egg_kit.egg-info"
    info.mkdir()
    (info / "PKG-INFO").write_text(
        "Metadata-Version: 2.1\r\nName: egg-kit\r\nVersion: 0.2\r\n\r\nName: no field\r\n", encoding="utf-8"
    )
    (info / "entry_points.txt").write_text("[mtframe.head]\negg = egg_kit:Head\n", encoding="utf-8")
    (site / "egg_kit.py").write_text(HEAD, encoding="utf-8")
    resolved = resolve("head", "egg")
    assert (resolved.origin.dist, resolved.origin.version) == ("egg-kit", "0.2")


def test_component_in_a_file_is_relative_to_the_base(tmp_path: Path) -> None:
    (tmp_path / "heads.py").write_text(HEAD, encoding="utf-8")
    resolved = resolve("head", "./heads.py:Head", tmp_path)
    again = resolve("head", f"{tmp_path}/heads.py:Head")
    assert resolved.component is again.component
    assert resolved.origin.file == tmp_path / "heads.py"
    assert str(resolved.origin) == str(tmp_path / "heads.py")
    # Picklable by reference, as a loader's worker needs it.
    assert sys.modules[resolved.component.__module__].Head is resolved.component


def test_edited_file_is_imported_afresh_and_same_names_do_not_clash(tmp_path: Path) -> None:
    for folder, width in (("a", 1), ("b", 2)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "heads.py").write_text(f"class Head:\n    width = {width}\n", encoding="utf-8")
    assert resolve("head", "./heads.py:Head", tmp_path / "a").component.width == 1
    assert resolve("head", "./heads.py:Head", tmp_path / "b").component.width == 2
    (tmp_path / "a" / "heads.py").write_text("class Head:\n    width = 3\n", encoding="utf-8")
    assert resolve("head", "./heads.py:Head", tmp_path / "a").component.width == 3


def test_file_with_a_mistake_names_it(tmp_path: Path) -> None:
    (tmp_path / "bad.py").write_text("class Head:\n    pass\n1 / 0\n", encoding="utf-8")
    (tmp_path / "good.py").write_text(HEAD, encoding="utf-8")
    before = set(sys.modules)
    with pytest.raises(PluginError, match="ZeroDivisionError") as error:
        resolve("head", "./bad.py:Head", tmp_path)
    assert isinstance(error.value.__cause__, ZeroDivisionError)
    assert set(sys.modules) == before
    with pytest.raises(PluginError, match=r"no 'Haed' in .*good\.py; did you mean 'Head'"):
        resolve("head", "./good.py:Haed", tmp_path)
    with pytest.raises(PluginError, match=r"cannot read .*none\.py: No such file"):
        resolve("head", "./none.py:Head", tmp_path)


def test_file_in_a_name_becomes_absolute_and_other_names_stay(tmp_path: Path) -> None:
    assert local_file("./x/../heads.py:Head/a", tmp_path) == f"{tmp_path.as_posix()}/heads.py:Head/a"
    assert local_file("timm/resnet18", tmp_path) == "timm/resnet18"


def test_a_class_stands_for_its_name_as_pickle_would_find_it(site: Path) -> None:
    with pytest.raises(
        PluginError, match=r"'mtframe\.registry:Origin': a class of a Python program, which this one has"
    ):
        resolve("head", "mtframe.registry:Origin")
    assert name_of(Origin) == "mtframe.registry:Origin"
    assert resolve("head", "mtframe.registry:Origin").component is Origin
    assert str(resolve("head", "mtframe.registry:Origin").origin) == "mtframe.registry"
    # What an installed distribution offers is called as it calls it.
    make_dist(site, "one-kit", {"mtframe.head": {"twin": "one_kit:Head"}}, {"one_kit": HEAD})
    registry.installed.cache_clear()
    head = resolve("head", "twin").component
    assert name_of(head) == "twin"
    make_dist(site, "two-kit", {"mtframe.head": {"twin": "two_kit:Head"}}, {"two_kit": HEAD})
    registry.installed.cache_clear()
    assert name_of(head) == "twin@one-kit"

    class Local:
        pass

    for nameless in (Local, lambda: None, Local()):
        with pytest.raises(ValueError, match="a class or function that a module has at its top"):
            name_of(nameless)


def test_a_recipe_reaches_into_no_module() -> None:
    assert "this" not in sys.modules
    for name in ("this:s", "os:abort", "mtframe.errors:MtframeError"):
        with pytest.raises(PluginError, match=f"'{name}': a class of a Python program, which this one has not given"):
            resolve("hooks", name)
    assert "this" not in sys.modules


@pytest.mark.parametrize(
    ("requirement", "unmet"),
    [
        ("mtframe", ""),
        ("mtframe>=0.1,<99", ""),
        ("mtframe-extras>=9", ""),
        ("mtframe>=9", "mtframe>=9"),
        ("MTframe[parquet] (>=9)", "mtframe>=9"),
        ("mtframe>=9; python_version < '3'", ""),
        ("mtframe>=9; extra == 'new'", ""),
        ("mtframe>>9", "'mtframe>>9' ("),
        ("mtframe\n  >=9", "mtframe>=9"),
        ("mtframe>=0.1; platform_system ~= 'Linux'", "\"mtframe>=0.1; platform_system ~= 'Linux'\" (Undefined"),
    ],
)
def test_what_a_plugin_needs_of_mtframe(site: Path, requirement: str, unmet: str) -> None:
    make_dist(site, "new-kit", {"mtframe.head": {"new": "new_kit:Head"}}, {"new_kit": HEAD}, requires=[requirement])
    (found,) = (component for component in discover("head") if component.name == "new")
    assert found.unmet.startswith(unmet)
    assert bool(found.unmet) == bool(unmet)
    if unmet:
        assert found.broken == f"new-kit 1.2.3 needs {found.unmet}, and this is mtframe {__version__}"
        with pytest.raises(PluginError, match="pip install --upgrade new-kit"):
            resolve("head", "new")
        assert "new_kit" not in sys.modules
    else:
        assert resolve("head", "new")


def test_only_some_plugins_or_none(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("one-kit", "two-kit"):
        module = name.replace("-", "_")
        make_dist(site, name, {"mtframe.head": {name: f"{module}:Head"}}, {module: HEAD})
    for allowed, seen in ((None, {"one-kit", "two-kit"}), ("", set()), ("Two_Kit, other", {"two-kit"})):
        if allowed is not None:
            monkeypatch.setenv("MTFRAME_PLUGINS", allowed)
        names = {component.name for component in discover("head")}
        assert names & {"one-kit", "two-kit"} == seen
        assert "dense" in names
    with pytest.raises(PluginError, match="'one-kit' is offered by one-kit, which --no-plugins or MTFRAME"):
        resolve("head", "one-kit")


def test_what_an_import_prints_stays_out_of_standard_output(site: Path, capfd: pytest.CaptureFixture[str]) -> None:
    make_dist(site, "loud-kit", {"mtframe.head": {"loud": "loud_kit:Head"}}, {"loud_kit": f"print('hello')\n{HEAD}"})
    resolve("head", "loud")
    assert capfd.readouterr() == ("", "hello\n")
    (site / "loud.py").write_text(f"print('hello')\n{HEAD}", encoding="utf-8")
    resolve("head", f"{site}/loud.py:Head")
    assert capfd.readouterr() == ("", "hello\n")


def test_a_listing_remembers_what_the_last_import_showed(
    site: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    source = {"bad_kit": "import no_such_thing", "loud_kit": f"print('hello')\n{HEAD}"}
    entries = {"mtframe.head": {"bad": "bad_kit:Head", "loud": "loud_kit:Head", "good": "good_kit:Head"}}
    make_dist(site, "kits", entries, source | {"good_kit": HEAD})
    monkeypatch.setenv("MTFRAME_CACHE", str(tmp_path / "cache"))
    found = {component.name: component for component in discover("head") if component.dist == "kits"}
    assert not any(noted(component.label) for component in found.values())
    for name in found:
        with contextlib.suppress(PluginError):
            resolve("head", name)
    assert noted(found["bad"].label).startswith(
        "its import failed: ModuleNotFoundError: No module named 'no_such_thing' (20"
    )
    assert noted(found["loud"].label).startswith("prints on import (20")
    assert noted(found["good"].label) == ""
    # Another import of the same module prints nothing, and says nothing of the first.
    resolve("head", "loud")
    assert noted(found["loud"].label)
    (site / "bad_kit.py").write_text(HEAD, encoding="utf-8")
    importlib.invalidate_caches()
    resolve("head", "bad")
    assert noted(found["bad"].label) == ""
    # What cannot be written or read is not missed.
    (tmp_path / "cache/plugins.json").write_text("{", encoding="utf-8")
    monkeypatch.setenv("MTFRAME_CACHE", "/dev/null")
    note(found["bad"].label, "never kept")


def test_imports_in_two_threads_leave_standard_output_as_it_was() -> None:
    before, entered, left = sys.stdout, threading.Event(), threading.Event()

    def other() -> None:
        with quiet():
            entered.set()
            left.wait(10)

    with quiet():
        thread = threading.Thread(target=other)
        thread.start()
        # Long enough for it to come in, if it could.
        assert not entered.wait(0.2)
    left.set()
    thread.join()
    assert sys.stdout is before


def test_a_file_means_what_it_says_when_it_is_imported_otherwise(tmp_path: Path) -> None:
    (tmp_path / "heads.py").write_text(
        "class Head:\n    def __init__(self, *, width: int = 3): ...\n", encoding="utf-8"
    )
    head = resolve("head", "./heads.py:Head", tmp_path).component
    assert head.__init__.__annotations__ == {"width": int}


RENAMED = (
    "old-kites 1.2.3 offers kites, birds in group mtframe.task, which is called mtframe.preset since 0.2; rename it in "
    "pyproject.toml"
)
MISSPELT = "odd 1.2.3 offers a in group mtframe.heads, which is no kind of component; did you mean mtframe.head?"


def test_a_group_that_is_no_kind_s_is_told_with_the_right_one(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_dist(site, "old-kites", {"mtframe.task": {"kites": "old:Kites", "birds": "old:Birds"}})
    make_dist(site, "odd", {"mtframe.heads": {"a": "odd:A"}, "mtframe_tools": {"b": "odd:B"}})
    make_dist(site, "moody", {"mtframe.zzz": {"sad": "moody:Sad"}})
    moody, *others = map(str, strays())
    assert moody.startswith(
        "moody 1.2.3 offers sad in group mtframe.zzz, which is no kind of component; the kinds are "
    )
    assert others == [MISSPELT, RENAMED]
    assert f"note: {RENAMED}\n" in mtframe("plugins", "list", "preset").err

    doctor = mtframe("plugins", "doctor", "old-kites")
    assert doctor.code == 1
    assert doctor.out.startswith(
        f"old-kites 1.2.3\n  PROBLEM  {RENAMED}\n           What to do: name the right group in its"
    )
    assert doctor.out.endswith("1 problem\n")

    checked = mtframe("plugins", "check", "old-kites")
    assert (checked.code, checked.err) == (2, f"error: {RENAMED}\n")
    # One with components as well is not half found: its author sees it.
    make_dist(site, "both", {"mtframe.task": {"kites": "old:Kites"}, "mtframe.head": {"b": "both:B"}})
    registry.installed.cache_clear()
    with pytest.raises(RecipeError, match=r"both 1\.2\.3 offers kites in group mtframe\.task"):
        Kit("both")

    monkeypatch.setenv("MTFRAME_PLUGINS", "odd")
    assert [str(stray) for stray in strays()] == [MISSPELT]


def test_long_names_and_many_of_them_are_not_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[str] = []
    monkeypatch.setattr("difflib.get_close_matches", lambda _, names, n: compared.extend(names) or [])
    registry.did_you_mean("name", ["x" * 101, *(f"name{number}" for number in range(10_000))])
    assert (len(compared), compared[0]) == (5000, "name0")
    compared.clear()
    registry.did_you_mean("x" * 101, ["x" * 100])
    assert not compared
