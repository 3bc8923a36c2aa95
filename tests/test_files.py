"""Every file is written whole: what is there is the old one or the new, with the user's permissions."""

from __future__ import annotations

import ast
import errno
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from full_disk import fill
from mtframe import _notes, files
from mtframe._trust import _memory
from mtframe.drawing import save_picture
from mtframe.errors import Code, MtframeError
from mtframe.evaluation import Bars
from mtframe.evaluation._plots import draw_detail
from mtframe.files import appending, is_partial, replacing, write_bytes, write_text
from mtframe.inference import save_embeddings
from mtframe.run import agree
from mtframe.run import write_text as write_run_text
from mtframe.synthesis import write_jpeg
from mtframe.synthesis import write_text as write_data_text
from mtframe.training._gradient_log import COLUMNS
from mtframe.training._gradient_plot import plot_gradients
from mtframe_observers.csv_logger import append_row, plot_losses, truncate

ROOT = Path(__file__).resolve().parents[1]


def pictured(path: Path, number: int) -> None:
    save_picture(Image.new("RGB", (40, 30), (200 * number, 0, 0)), path)


def embedded(path: Path, number: int) -> None:
    save_embeddings({"faces": torch.full((1, 4), float(number))}, ["a.jpg"], path)


def plotted(path: Path, number: int) -> None:
    table = path.with_name("table.csv")
    table.write_text(f"step,faces/loss\n1,{number}.5\n", encoding="utf-8")
    try:
        plot_losses(table, path)
    finally:
        table.unlink()


def drawn(path: Path, number: int) -> None:
    row = dict.fromkeys(COLUMNS, "") | {"step": "1", "task": "a", "other": "b", "cosine": f"0.{number}"}
    plot_gradients([{**row, "stage": stage} for stage in ("all", "first")], path)


def truncated(path: Path, number: int) -> None:
    if not path.exists():
        append_row(path, {"step": 1, "a/loss": 1.5})
        append_row(path, {"step": 2, "a/loss": 1.5})
    truncate(path, 2 - number)


def noted(path: Path, number: int) -> None:
    """A file in a folder that only the environment names."""
    _notes._read.cache_clear()
    _notes.note("head 'a'", f"broken {number}")


# What is written of the number 0, then of 1, into a file of this name.
WRITERS: dict[str, tuple[str, Callable[[Path, int], None]]] = {
    "bytes": ("a.bin", lambda path, number: write_bytes(path, b"content" * (number + 1))),
    "text": ("a.txt", lambda path, number: write_text(path, f"tëxt {number}\n")),
    "a run's text": ("a.txt", lambda path, number: write_run_text(path, f"tëxt {number}\n")),
    "a data set's text": ("a.txt", lambda path, number: write_data_text(path, f"tëxt {number}\n")),
    "a data set's image": ("a.jpg", lambda path, number: write_jpeg(path, np.full((3, 8, 8), number, np.float32))),
    "a picture, jpg": ("a.jpg", pictured),
    "a picture, png": ("a.png", pictured),
    "a picture, webp": ("a.webp", pictured),
    "embeddings, npz": ("a.npz", embedded),
    "embeddings, parquet": ("a.parquet", embedded),
    "metrics.csv, cut": ("metrics.csv", truncated),
    "losses, drawn": ("a.png", plotted),
    "gradients, drawn": ("a.png", drawn),
    "a score's detail, drawn": ("a.png", lambda path, number: draw_detail(Bars("b", "u", {"a": number}), path)),
    "what is known of plugins": ("plugins.json", noted),
}


@pytest.fixture(params=WRITERS)
def writer(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[Path, Callable[[Path, int], None]]:
    monkeypatch.setenv("MTFRAME_CACHE", str(tmp_path))
    name, write = WRITERS[request.param]
    return tmp_path / name, write


@pytest.fixture
def umask() -> Iterator[None]:
    before = os.umask(0o027)
    yield
    os.umask(before)


@pytest.mark.parametrize("error", [None, KeyboardInterrupt()], ids=["full disk", "interrupted"])
def test_what_was_there_stays_until_all_of_the_new_is(
    writer: tuple[Path, Callable[[Path, int], None]], monkeypatch: pytest.MonkeyPatch, error: BaseException | None
) -> None:
    path, write = writer
    write(path, 0)
    before = path.read_bytes()
    with monkeypatch.context() as patch:
        fill(patch, error=error)
        # Listings do without what is known of plugins.
        silent = path.name == "plugins.json" and error is None
        raised, said = ((MtframeError, OSError), "No space left") if error is None else (type(error), None)
        with nullcontext() if silent else pytest.raises(raised, match=said):
            write(path, 1)
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == [path.name], "nothing is left beside it"
    write(path, 1)
    assert path.read_bytes() != before


def test_files_have_the_permissions_of_the_umask(writer: tuple[Path, Callable[[Path, int], None]], umask: None) -> None:
    path, write = writer
    write(path, 0)
    assert oct(path.stat().st_mode & 0o777) == oct(0o640)
    # As if it had been written over.
    path.chmod(0o600)
    write(path, 1)
    assert oct(path.stat().st_mode & 0o777) == oct(0o600)


def test_nobody_else_reads_a_file_while_it_is_rewritten(tmp_path: Path, umask: None) -> None:
    for mode in (0o600, 0o604):
        (tmp_path / "a").write_bytes(b"old")
        (tmp_path / "a").chmod(mode)
        with replacing(tmp_path / "a") as file:
            assert oct(os.fstat(file.fileno()).st_mode & 0o777) == oct(mode)
        (tmp_path / "a").unlink()


def a_run(path: Path) -> Path:
    path.mkdir()
    for name in ("recipe.yaml", "environment.json", "labels.json"):
        (path / name).write_text("{}", encoding="utf-8")
    return path


@pytest.mark.parametrize("other", ["labels.json", "environment.json"])
def test_a_project_with_a_recipe_and_a_file_of_one_name_is_no_run(tmp_path: Path, other: str) -> None:
    (tmp_path / "recipe.yaml").write_text("{}", encoding="utf-8")
    (tmp_path / other).write_text("{}", encoding="utf-8")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "runs").symlink_to(tmp_path.with_name("disk"))
    tmp_path.with_name("disk").mkdir(exist_ok=True)
    write_bytes(tmp_path / "runs" / "a", b"new")
    # With a checkpoint of ours it is one, also without what it was trained with.
    (tmp_path / "checkpoints" / "best").mkdir(parents=True)
    (tmp_path / "checkpoints" / "best" / "checkpoint.json").touch()
    with pytest.raises(OSError, match="is a link out of the run"):
        write_bytes(tmp_path / "runs" / "a", b"new")


def test_in_a_run_no_link_is_followed(tmp_path: Path) -> None:
    run, victim = a_run(tmp_path / "run"), tmp_path / "victim"
    victim.mkdir()
    (victim / "a").write_bytes(b"precious")
    (run / "a").symlink_to(victim / "a")
    write_bytes(run / "a", b"new")
    assert ((run / "a").read_bytes(), (victim / "a").read_bytes()) == (b"new", b"precious")
    (run / "out").symlink_to(victim)
    # A run itself: from the outside it is none of the other's folders all the same.
    a_run(tmp_path / "other")
    (run / "other").symlink_to(tmp_path / "other")
    for folder in ("out", "out/deeper", "other"):
        for write in (write_bytes, lambda path, _: appending(path).close()):
            with pytest.raises(OSError, match=f"is a link out of the run {run}, which is not followed; remove it"):
                write(run / folder / "a", b"new")
    assert (victim / "a").read_bytes() == b"precious"
    assert not (tmp_path / "other" / "a").exists()
    # What is beside a run is not in it, even if it is named from there.
    write_bytes(run / ".." / "beside", b"new")
    # A run may itself lie behind a link, and have links that stay in it.
    (tmp_path / "link").symlink_to(run)
    (run / "folder").mkdir()
    (run / "within").symlink_to("folder")
    write_bytes(tmp_path / "link" / "within" / "a", b"new")
    assert (run / "folder" / "a").read_bytes() == b"new"


def test_what_this_user_trusts_is_his_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, umask: None) -> None:
    monkeypatch.setenv("MTFRAME_STATE", str(tmp_path))
    _memory().write_text("[]", encoding="utf-8")
    agree([Code(tmp_path / "a.py", "0" * 64)], for_good=True)
    assert json.loads(_memory().read_text(encoding="utf-8")) == ["0" * 64]
    assert oct(_memory().stat().st_mode & 0o777) == oct(0o600)


def test_a_kill_in_the_middle_leaves_the_old_file_and_one_that_is_known(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("old", encoding="utf-8")
    killed = """
import os, signal, sys
from pathlib import Path
from mtframe.files import replacing
with replacing(Path(sys.argv[1])) as file:
    file.write(b"new" * 10_000)
    os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", killed, tmp_path / "a.txt"], check=False)
    assert done.returncode == -signal.SIGKILL
    assert (tmp_path / "a.txt").read_text(encoding="utf-8") == "old"
    (left,) = (file for file in tmp_path.iterdir() if file.name != "a.txt")
    assert is_partial(left)
    assert left.name.startswith(".a.txt.")
    assert not is_partial(tmp_path / "mine.partial")


def test_the_file_is_flushed_before_it_is_renamed_and_the_folder_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = []
    sync, replace = os.fsync, Path.replace

    def synced(number: int) -> None:
        done.append("folder" if Path(f"/proc/self/fd/{number}").resolve().is_dir() else "file")
        sync(number)

    def replaced(self: Path, goal: Path) -> Path:
        done.append("rename")
        return replace(self, goal)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "replace", replaced)
    write_bytes(tmp_path / "a", b"1")
    assert done == ["file", "rename", "folder"]
    done.clear()
    write_bytes(tmp_path / "a", b"2", flush=False)
    assert done == ["rename"]


def test_two_writers_of_one_file_do_not_meet(tmp_path: Path) -> None:
    with replacing(tmp_path / "a") as first, replacing(tmp_path / "a") as second:
        first.write(b"first")
        second.write(b"second")
    assert (tmp_path / "a").read_bytes() == b"first", "the last one to be done"
    assert len(list(tmp_path.iterdir())) == 1


def test_a_link_is_followed_or_replaced(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    link, dangling = tmp_path / "link", tmp_path / "dangling"
    link.symlink_to("there/a")
    write_bytes(tmp_path / "there" / "a", b"old")
    write_bytes(link, b"new")
    assert link.is_symlink()
    assert (tmp_path / "there" / "a").read_bytes() == b"new"
    dangling.symlink_to("there/b")
    write_bytes(dangling, b"1")
    assert (tmp_path / "there" / "b").read_bytes() == b"1"
    # In a run, a stranger's link may lead anywhere.
    write_run_text(link, "of the run")
    assert not link.is_symlink()
    assert (tmp_path / "there" / "a").read_bytes() == b"new"
    (tmp_path / "round").symlink_to("round")
    with pytest.raises(OSError, match="symbolic links") as raised:
        write_bytes(tmp_path / "round", b"1")
    assert (raised.value.errno, raised.value.filename) == (errno.ELOOP, str(tmp_path / "round"))


@pytest.mark.parametrize("write", [write_bytes, lambda path, content: write_run_text(path, content.decode())])
def test_what_is_no_file_is_written_to_and_never_replaced(tmp_path: Path, write: Callable[[Path, bytes], None]) -> None:
    write(Path("/dev/null"), b"1")
    assert Path("/dev/null").is_char_device()
    with pytest.raises((OSError, MtframeError), match="No space left on device"):
        write(Path("/dev/full"), b"1")
    assert Path("/dev/full").is_char_device()
    os.mkfifo(tmp_path / "pipe")
    # Not blocking: both ends are here.
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    write(tmp_path / "pipe", b"through")
    assert os.read(reader, 100) == b"through"
    os.close(reader)
    assert [file.name for file in tmp_path.iterdir()] == ["pipe"]


@pytest.mark.parametrize(
    ("name", "number"),
    [("folder", errno.EISDIR), ("none/a", errno.ENOENT), ("file/a", errno.ENOTDIR), ("a" * 300, errno.ENAMETOOLONG)],
)
def test_a_goal_that_cannot_be_written_is_named(tmp_path: Path, name: str, number: int) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=os.strerror(number)) as raised:
        write_bytes(tmp_path / name, b"1")
    assert (raised.value.errno, raised.value.filename) == (number, str(tmp_path / name))
    assert {file.name for file in tmp_path.iterdir()} == {"folder", "file"}


def test_the_longest_name_can_be_written(tmp_path: Path) -> None:
    # As bytes, which every locale's encoding can decode.
    for name in map(os.fsdecode, (b"a" * 255, "ä".encode() * 127, b"\xe4" * 255)):
        write_bytes(tmp_path / name, b"1")
        assert (tmp_path / name).read_bytes() == b"1"


@pytest.mark.parametrize("call", [lambda path: write_bytes(path, b"1"), files.appending, files.to_disk])
@pytest.mark.parametrize("name", ["a\0b", "\ud800", "none\0/a"])
def test_a_name_that_no_file_can_have_is_an_os_error(tmp_path: Path, name: str, call: Callable[[Path], object]) -> None:
    with pytest.raises(OSError, match=r"is no file's name|this locale's encoding") as raised:
        call(tmp_path / name)
    assert (raised.value.errno, raised.value.filename) == (errno.EINVAL, str(tmp_path / name))
    assert not list(tmp_path.iterdir())


def test_a_name_that_the_locale_has_not_is_an_os_error(tmp_path: Path) -> None:
    script = "import sys, pathlib; from mtframe.files import write_bytes; write_bytes(pathlib.Path('\\u65e5'), b'1')"
    environment = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run([sys.executable, "-c", script], env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert "OSError: [Errno 22] has letters that ascii, this locale's encoding, has not" in done.stderr


def test_a_value_error_of_what_is_written_is_its_own(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="mine"), replacing(tmp_path / "a"):
        raise ValueError("mine")
    assert not list(tmp_path.iterdir())


def test_a_file_in_a_folder_that_is_read_only_is_written_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").write_text("a longer text", encoding="utf-8")
    # Root may write everywhere.
    monkeypatch.setattr(os, "access", lambda path, mode: path != tmp_path)
    number = (tmp_path / "a").stat().st_ino
    write_bytes(tmp_path / "a", b"new")
    assert (tmp_path / "a").read_bytes() == b"new"
    assert (tmp_path / "a").stat().st_ino == number
    # A run's is never half there.
    write_run_text(tmp_path / "a", "newer")
    assert (tmp_path / "a").stat().st_ino != number


@pytest.mark.skipif(os.getuid() == 0, reason="root may write everywhere")
def test_a_folder_that_is_read_only_is_told(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(PermissionError, match=str(tmp_path / "a")):
        write_bytes(tmp_path / "a", b"1")


def test_what_a_file_system_cannot_flush_is_written_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(number: int) -> None:
        raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(os, "fsync", refuse)
    write_bytes(tmp_path / "a", b"1")
    assert (tmp_path / "a").read_bytes() == b"1"


# What writes files by itself, by module and function, and why it may.
EXCEPTIONS = {
    ("mtframe/files.py", "replacing"): "the one writer",
    ("mtframe/files.py", "appending"): "log.txt, metrics.csv and gradients.csv grow line by line",
    ("mtframe/files.py", "growing"): "the JSON lines of a film grow frame by frame",
    ("mtframe/video/_write.py", "__init__"): "FFmpeg writes into the partial file of `replacing`, by its name",
    ("mtframe/run/_checkpoint.py", "write"): "a checkpoint is a folder, flushed and renamed as one",
    ("mtframe/run/_writer.py", "acquire"): "the lock: empty",
    ("mtframe/_trust.py", "_alone"): "likewise",
    ("mtframe/download.py", "_fetch"): "a transfer goes on from what is there; flushed, then renamed",
    ("mtframe/download.py", "_untar"): "into a folder of its own, which is flushed, then moved",
    ("mtframe/download.py", "_unzip"): "into a folder of its own, which is flushed, then moved",
    ("mtframe/import_probe.py", "_in_process"): "in a temporary folder",
    ("mtframe/import_probe.py", "_main"): "in a temporary folder",
    ("mtframe/training/_log.py", "_LogFile"): "log.txt grows line by line",
    ("plugins/mtframe_observers/tensorboard_logger.py", "__init__"): "TensorBoard's log grows",
}

# Methods and functions that write a file, by name; where they are given a stream, they write into that.
_WRITING = {
    "write_text", "write_bytes", "touch", "save", "savez", "savez_compressed", "save_file", "savetxt", "savefig",
    "imsave", "imwrite", "tofile", "to_csv", "to_json", "to_parquet", "write_table", "extract", "extractall",
    "urlretrieve", "FileHandler", "SummaryWriter", "NamedTemporaryFile", "mkstemp",
}  # fmt: skip

# safetensors' gives bytes.
_HARMLESS = {"safetensors.save", "save"}


def writing_calls(tree: ast.AST, streams: frozenset[str] = frozenset(), where: str = "") -> Iterator[tuple[str, int]]:
    """Function (or class, outside of one) and line of what writes a file, but into one that `replacing` gave."""
    for node in ast.iter_child_nodes(tree):
        inner, known = where, streams
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            inner = node.name
        if isinstance(node, ast.With):
            known |= {
                item.optional_vars.id
                for item in node.items
                if isinstance(item.optional_vars, ast.Name)
                and ast.unparse(item.context_expr).startswith(("replacing(", "io.BytesIO("))
            }
        if isinstance(node, ast.FunctionDef):
            known |= {
                target.id
                for each in ast.walk(node)
                if isinstance(each, ast.Assign) and ast.unparse(each.value).startswith(("io.BytesIO(", "io.StringIO("))
                for target in each.targets
                if isinstance(target, ast.Name)
            }
        if isinstance(node, ast.ClassDef) and any("FileHandler" in ast.unparse(base) for base in node.bases):
            yield inner, node.lineno
        if isinstance(node, ast.ImportFrom) and any(alias.name == "SummaryWriter" for alias in node.names):
            yield inner, node.lineno
        if isinstance(node, ast.Call) and writes(node, known):
            yield inner, node.lineno
        yield from writing_calls(node, known, inner)


def writes(call: ast.Call, streams: frozenset[str]) -> bool:
    arguments = [*call.args, *(keyword.value for keyword in call.keywords)]
    if any(isinstance(argument, ast.Name) and argument.id in streams for argument in arguments):
        return False
    whole = ast.unparse(call.func)
    name = whole.rpartition(".")[2]
    if name == "open":
        modes = [each.value for each in arguments if isinstance(each, ast.Constant) and isinstance(each.value, str)]
        modes += [
            each.value
            for argument in arguments
            if isinstance(argument, ast.IfExp)
            for each in ast.walk(argument)
            if isinstance(each, ast.Constant) and isinstance(each.value, str)
        ]
        flags = any("os.O_WRONLY" in ast.unparse(each) or "os.O_RDWR" in ast.unparse(each) for each in arguments)
        return flags or any(set(mode) <= set("rwaxbt+") and set(mode) & set("wax+") for mode in modes)
    # Ours are called by their bare names, or as of the module.
    ours = {"write_text", "write_bytes", "files.write_text", "files.write_bytes"}
    return whole.startswith("shutil.copy") or (name in _WRITING and whole not in ours | _HARMLESS)


def test_nothing_writes_a_file_but_through_one_function() -> None:
    found: dict[tuple[str, str], list[int]] = {}
    for folder in ("mtframe", "plugins"):
        for file in sorted((ROOT / folder).rglob("*.py")):
            for function, line in writing_calls(ast.parse(file.read_text(encoding="utf-8"))):
                found.setdefault((file.relative_to(ROOT).as_posix(), function), []).append(line)
    assert {place: lines for place, lines in found.items() if place not in EXCEPTIONS} == {}
    assert set(EXCEPTIONS) - set(found) == set(), "exceptions that nothing needs"


@pytest.mark.parametrize(
    "line",
    [
        "path.write_bytes(b'')", "Path(a).write_text('')", "open(path, 'w')", "path.open('ab' if done else 'wb')",
        "path.open(mode='x')", "os.open(path, os.O_RDWR)", "image.save(path)", "torch.save(a, path)",
        "np.savez(path, a=1)", "figure.savefig(path)", "shutil.copyfile(a, b)", "open(path, 'r+b')",
        "table.write_table(a, path)",
    ],
)  # fmt: skip
def test_what_writes_a_file_is_recognised(line: str) -> None:
    assert [where for where, _ in writing_calls(ast.parse(f"def f():\n    {line}"))] == ["f"]
    assert not list(writing_calls(ast.parse("with replacing(path) as file:\n    np.savez(file, a=1)")))
    assert not list(writing_calls(ast.parse("with path.open('rb') as file:\n    file.read()")))


def test_the_writers_are_those_of_the_module() -> None:
    """A bare `write_text` is taken for ours above: it is, wherever it is imported."""
    ours = {"mtframe.files", "mtframe.run", "mtframe.synthesis", "_files"}
    for folder in ("mtframe", "plugins"):
        for file in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                if isinstance(node, ast.ImportFrom) and {alias.name for alias in node.names} & {
                    "write_text", "write_bytes", "replacing"
                }:  # fmt: skip
                    assert node.module in ours, file
    assert files.write_text is write_text
