"""The pages for users: their commands and their Python run as they are written, in order, on the parts that they name.

Only what takes time is less: images and their sizes, batches and steps. No weights are fetched.
"""

from __future__ import annotations

import pickle
import re
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from command import mtframe
from converted import write_yolo
from mtframe.recipe import read_recipe
from mtframe_detection.coco import Coco
from record_files import jpeg, write_training
from small import Small
from test_docs import ROOT

DOCS = ROOT / "docs"

BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", flags=re.MULTILINE | re.DOTALL)

# What `data synthesize` of a page is asked for besides.
FEW = {
    "lfw": ["people=3", "images=3", "test_people=4", "pairs=10", "size=64", "workers=1"],
    "image-folder": ["train=16", "val=8", "size=32", "workers=1"],
    "coco": ["train=4", "val=3", "size=64", "workers=1"],
}
LESS = ["backbone.pretrained=false", "train.steps=2", "train.workers=0", "train.precision=fp32", "train.ema=null"]


def less(words: list[str]) -> list[str]:
    """What a call is given besides, so that it takes a second."""
    if words[:2] == ["data", "synthesize"]:
        return FEW[words[2]]
    if words[0] not in ("train", "init") or "--resume" in words:
        return []
    recipes = [word for word in words[1:] if word.endswith(".yaml")]
    named = read_recipe(recipes[0])["tasks"] if recipes else re.findall(r"(?:^|\s)(\w+)=[a-z]+-[a-z]+", " ".join(words))
    assert named, words
    return [*LESS, *(f"tasks.{task}.{key}" for task in named for key in ("size=64", "batch_size=4"))]


def yolo(here: Path, small: Small) -> None:
    for split in ("train", "val"):
        write_yolo(Coco(split, root=small.objects), here / "data" / "mine")
    names = (here / "data/mine/classes.txt").read_text(encoding="utf-8").split()
    described = f"path: .\ntrain: images/train\nval: images/val\nnames: [{', '.join(names)}]\n"
    (here / "data/mine/data.yaml").write_text(described, encoding="utf-8")
    (here / "data/mine/classes.txt").unlink()


def records(here: Path, small: Small) -> None:
    write_training(here / "data/faces", [3, 3, 2])
    for number, name in enumerate(("lfw.bin", "agedb_30.bin", "cfp_fp.bin")):
        content = [jpeg(seed, 112) for seed in range(100 * number, 100 * number + 40)], [True, False] * 10
        (here / "data/faces" / name).write_bytes(pickle.dumps(content, protocol=2))
    (here / "photos").mkdir()
    for number in range(2):
        (here / f"photos/{number}.jpg").write_bytes(jpeg(number, 112))


def nothing(here: Path, small: Small) -> None:
    """The page makes its data itself."""


BEGINS: dict[str, Callable[[Path, Small], None]] = {
    "python.md": nothing,
    "coming-from-ultralytics.md": yolo,
    "coming-from-insightface.md": records,
    "coming-from-libmtl-or-lightning.md": nothing,
}


def test_all_such_pages_are_run() -> None:
    assert {path.name for path in DOCS.glob("coming-from-*.md")} == BEGINS.keys() - {"python.md"}


@pytest.mark.parametrize("name", BEGINS)
def test_a_page_runs_as_written_on_the_parts_that_it_names(
    name: str, small: Small, here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A block of YAML is `recipe.yaml`; `print(...)  # text` prints that text."""
    BEGINS[name](here, small)
    # As a notebook does: one module, whose classes are found by name.
    notebook = ModuleType("notebook")
    monkeypatch.setitem(sys.modules, "notebook", notebook)
    said: list[str] = []
    last = ""
    for language, text in BLOCK.findall((DOCS / name).read_text(encoding="utf-8")):
        if language == "yaml":
            Path("recipe.yaml").write_text(text, encoding="utf-8")
            run("mtframe init recipe.yaml > recipe.yaml", "")
        elif language == "python":
            last = text if "\nclass " in text else last
            exec(compile(text, f"docs/{name}", "exec"), vars(notebook))
            said += re.findall(r"^ *print\(.*\)  # (.*)$", text, flags=re.MULTILINE)
        else:
            assert language == "", f"a block of {language} is not run"
            run(text, last)
    printed = capsys.readouterr().out.splitlines()
    assert said
    missing = [line for line in said if not any(line in out for out in printed)]
    assert missing == []


def run(text: str, source: str) -> None:
    """Runs calls, a line each; `source` is the last class before them, which is their `parts.py`."""
    if "./parts.py" in text:
        Path("parts.py").write_text(source, encoding="utf-8")
    for line in text.splitlines():
        call, _, goal = line.partition(" > ")
        words = shlex.split(call)
        assert words[0] == "mtframe", line
        result = mtframe(*words[1:], *less(words[1:]))
        assert (result.code, result.err) == (0, ""), f"{call}: {result.err}\n{result.out}"
        if goal:
            Path(goal).write_text(result.out, encoding="utf-8")
