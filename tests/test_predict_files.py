"""Many files: found, named apart, read by workers, drawn by threads; what is wrong with one is told and no more."""

from __future__ import annotations

import io
import json
import re
import shutil
import sys
import threading
import time
import weakref
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from command import mtframe
from full_disk import fill
from mtframe.assembly import Assembly
from mtframe.cli import main
from mtframe.drawing import FORMATS, contact_sheet, nearest, save_picture
from mtframe.errors import MtframeError, RecipeError
from mtframe.inference import Predictor, find_pictures, load_run, predict_files
from mtframe.inference import _files as files_module
from mtframe.inference import _pictures as pictures_module
from mtframe.inference import _similar as similar_module
from mtframe.inference._names import alike, distinct_names
from mtframe.inference._pictures import FilePictures, Source
from mtframe.recipe import Recipe
from mtframe_detection.boxes import Boxes
from small import Small
from toy import toy_recipe

of_unicode = pytest.mark.skipif(sys.getfilesystemencoding() == "ascii", reason="no file has such a name in this locale")


@pytest.fixture(scope="module")
def predictor(small_run: Path) -> Predictor:
    return load_run(small_run, device="cpu")


def picture(path: Path, number: int = 0, size: tuple[int, int] = (40, 30)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(number).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def names_in(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_pictures_in_a_run_follow_no_link(small_run: Path, tmp_path: Path) -> None:
    """`RUN/predictions` is where pictures go by default, and the run may be a stranger's."""
    run, victim = tmp_path / "run", tmp_path / "victim"
    shutil.copytree(small_run, run)
    (run / "predictions").mkdir()
    for name in ("a.jpg", "b.png"):
        picture(tmp_path / name)
        (tmp_path / f"precious-{name}").write_bytes(b"precious")
        (run / "predictions" / name).symlink_to(tmp_path / f"precious-{name}")
        result = mtframe("predict", run, tmp_path / name, "--format", Path(name).suffix[1:])
        assert result.code == 0, result
        assert (tmp_path / f"precious-{name}").read_bytes() == b"precious"
        assert not (run / "predictions" / name).is_symlink()
    shutil.rmtree(run / "predictions")
    victim.mkdir()
    (run / "predictions").symlink_to(victim)
    result = mtframe("predict", run, tmp_path / "a.jpg")
    assert result.code == 2
    assert f"predictions cannot be a folder (is a link out of the run {run}, which is not followed" in result.err
    assert not list(victim.iterdir())
    # Where the user says so, links are followed.
    (tmp_path / "out").symlink_to(victim)
    assert mtframe("predict", run, tmp_path / "a.jpg", "--out", tmp_path / "out").code == 0
    assert names_in(victim) == ["a.jpg"]


def test_images_of_a_folder_are_found_sorted_and_files_are_taken_as_they_are(tmp_path: Path) -> None:
    for name in ("b/2.JPG", "b/1.png", "a.jpeg", "notes.txt", "c.tiff"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "folder.png").mkdir()
    assert find_pictures([tmp_path]) == [
        Source(tmp_path / "a.jpeg", "a"),
        Source(tmp_path / "b" / "1.png", "b/1"),
        Source(tmp_path / "b" / "2.JPG", "b/2"),
        Source(tmp_path / "c.tiff", "c"),
    ]
    assert find_pictures([str(tmp_path / "notes.txt")]) == [Source(tmp_path / "notes.txt", "notes")]
    with pytest.raises(RecipeError, match=r"folder\.png: no image in this folder \(looked for \.avif, \.bmp, \.gif"):
        find_pictures([tmp_path / "folder.png"])
    with pytest.raises(RecipeError, match="nowhere: no such file or folder"):
        find_pictures([tmp_path / "nowhere"])


def test_each_file_is_taken_once_however_it_is_spelled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in").mkdir()
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / "in" / name).touch()
    found = find_pictures(["in/b.jpg", "in", tmp_path / "in" / "a.jpg", "./in/../in/a.jpg"])
    # The first spelling counts, as does its place.
    assert found == [Source(Path("in/b.jpg"), "b"), Source(Path("in/a.jpg"), "a")]


def touched(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def named(*sources: Path) -> dict[str, str]:
    """Names by what files are called, with the last folder of theirs."""
    return {"/".join(source.file.parts[-2:]): source.name for source in find_pictures(sources)}


def test_pictures_of_one_name_in_several_sources_say_which_they_are_of(tmp_path: Path) -> None:
    same = touched(tmp_path / "same", "x/1.jpg", "x/2.jpg", "y/1.jpg", "y/2.png", "y/3.jpg")
    assert named(same / "x", same / "y") == {
        "x/1.jpg": "x_1", "x/2.jpg": "x_2", "y/1.jpg": "y_1", "y/2.png": "y_2", "y/3.jpg": "3"
    }  # fmt: skip
    assert named(same / "x" / "1.jpg", same / "y" / "1.jpg") == {"x/1.jpg": "x_1", "y/1.jpg": "y_1"}
    # As much of the path as tells them apart.
    deep = touched(tmp_path, "one/photos/a/1.jpg", "two/photos/a/1.jpg")
    assert [source.name for source in find_pictures([deep / "one" / "photos", deep / "two" / "photos"])] == [
        "one_photos_a/1", "two_photos_a/1"
    ]  # fmt: skip


@of_unicode
def test_pictures_that_differ_by_their_suffix_say_it_and_no_name_is_taken_twice(tmp_path: Path) -> None:
    root = touched(
        tmp_path, "x/a.jpg", "x/a.png", "y/a.jpg", "y/A.JPEG", "x/a_png.jpg", "z/Ä.png", "z/A\u0308.png", "z/ä.png"
    )
    assert named(root) == {
        "x/a.jpg": "x/a_jpg", "x/a.png": "x/a_png", "x/a_png.jpg": "x/a_png_jpg",
        "y/A.JPEG": "y/A_jpeg", "y/a.jpg": "y/a_jpg",
        # Nothing of their paths tells these apart where case and normal form do not count.
        "z/A\u0308.png": "z/A\u0308", "z/Ä.png": "z/Ä-2", "z/ä.png": "z/ä-3",
    }  # fmt: skip


def test_no_picture_is_where_another_needs_a_folder(predictor: Predictor, tmp_path: Path) -> None:
    picture(tmp_path / "in" / "b.png")
    picture(tmp_path / "in" / "b.jpg" / "c.png")
    picture(tmp_path / "in" / "a.png")
    picture(tmp_path / "in" / "a_objects_mask.png" / "d.png")
    writing = Predictor(predictor.assembly, predictor.model, predictor.device)
    writing.targets = {**predictor.targets, "objects": WritingBoxes(predictor.infos["objects"])}
    predict_files(writing, find_pictures([tmp_path / "in"]), tmp_path / "out", ["objects"])
    assert names_in(tmp_path / "out") == sorted([
        "a.jpg", "a_objects_mask-2.png", "in_b.jpg", "in_b_objects_mask.png",
        "b.jpg/c.jpg", "b.jpg/c_objects_mask.png",
        "a_objects_mask.png/d.jpg", "a_objects_mask.png/d_objects_mask.png",
    ])  # fmt: skip


LETTERS = st.text("aAbB/._-1äÄ\u0308", min_size=1, max_size=6)


@settings(deadline=None)
@given(st.lists(st.tuples(LETTERS, st.sampled_from(["jpg", "png", "JPG"]), st.integers(1, 3)), max_size=12))
def test_no_two_names_are_alike_whatever_files_are_called(texts: list[tuple[str, str, int]]) -> None:
    files = {Path(f"/in/{text.strip('/.') or 'x'}.{suffix}"): depth for text, suffix, depth in texts}
    pairs = [(file, Path(*file.parts[-min(depth, len(file.parts) - 1) :])) for file, depth in files.items()]
    names = distinct_names(pairs)
    assert len({alike(name) for name in names}) == len(files)
    assert all(name and not name.startswith("/") for name in names)
    drawn = {alike(f"{name}.{suffix}") for name in names for suffix in FORMATS}
    assert not drawn & {alike(str(folder)) for name in names for folder in Path(name).parents}


def test_rows_of_similar_pictures_are_called_as_the_pictures_are(
    predictor: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    captions: list[str] = []

    def sheet(images: list[Image.Image], names: list[str], **options: Any) -> Image.Image:
        captions.extend(names)
        return contact_sheet(images, names, **options)

    monkeypatch.setattr("mtframe.drawing._sheets.contact_sheet", sheet)
    sources = find_pictures([picture(tmp_path / name / "1.png", len(name)).parent for name in ("x", "yy")])
    predict_files(predictor, sources, tmp_path / "out", ["faces"])
    assert [caption.split()[-1] for caption in captions] == ["x_1", "yy_1", "yy_1", "x_1"]


@pytest.mark.parametrize("count", [2, 5, 12, 40])
def test_similar_pictures_are_those_of_all_while_few_are_kept(
    count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = torch.Generator().manual_seed(count)
    embeddings = torch.nn.functional.normalize(torch.randn(count, 6, generator=generator), dim=1)
    shown: list[tuple[list[str], list[list[str]]]] = []

    def sheet(_: Any, names: list[str], vectors: Tensor, *, neighbours: int, rows: range) -> Image.Image:
        assert len(rows) == min(12, count)
        _, order = nearest(vectors, rows, neighbours)
        shown.append((names, [[names[column] for column in columns] for columns in order.tolist()]))
        return Image.new("RGB", (1, 1))

    monkeypatch.setattr(similar_module, "similarity_sheet", sheet)
    file, similar = picture(tmp_path / "a.png"), similar_module.SimilarPictures()
    for number, embedding in enumerate(embeddings):
        similar.add(Source(file, str(number)), embedding)
        assert len(similar._kept) <= 12 * 5
    similar.sheet()
    _, order = nearest(embeddings, range(min(12, count)), 4)
    ((names, found),) = shown
    assert found == [[str(column) for column in columns] for columns in order.tolist()]
    assert names[: min(12, count)] == [str(number) for number in range(min(12, count))]


def test_files_are_predicted_drawn_and_bad_ones_named(predictor: Predictor, tmp_path: Path) -> None:
    bad, out, photo = tmp_path / "bad.jpg", tmp_path / "out", picture(tmp_path / "photo.png", size=(110, 70))
    bad.write_bytes(b"\xff\xd8\xff\xe0 no more")
    other = Path(shutil.copy(photo, tmp_path / "other.png"))
    result = predict_files(predictor, find_pictures([photo, bad, other]), out)
    assert [entry["source"] for entry in result.described] == [str(photo), str(other)]
    assert result.described[0]["size"] == [70, 110]
    assert result.described[0]["picture"] == str(out / "photo.jpg")
    assert result.unreadable == [f"{bad}: its JPEG header is damaged or cut off"]
    assert [path.name for path in result.pictures] == ["photo.jpg", "other.jpg", "faces_similar.jpg"]
    assert names_in(out) == ["faces_similar.jpg", "other.jpg", "photo.jpg"]
    # Once more it is the same files: what an earlier call wrote makes way.
    again = predict_files(predictor, find_pictures([photo]), out, ["objects"])
    assert [path.name for path in again.pictures] == ["photo.jpg"]
    # An embedding by itself shows nothing.
    alone = predict_files(predictor, find_pictures([photo]), out, ["faces"])
    assert alone.pictures == []
    assert "picture" not in alone.described[0]


@pytest.mark.parametrize("picture_format", FORMATS)
def test_pictures_are_written_in_the_format_that_is_asked_for(
    predictor: Predictor, tmp_path: Path, picture_format: str
) -> None:
    photo = picture(tmp_path / "photo.bmp")
    result = predict_files(predictor, find_pictures([photo]), tmp_path, ["objects"], picture_format=picture_format)
    (path,) = result.pictures
    assert path == tmp_path / f"photo.{picture_format}"
    with Image.open(path) as drawn:
        assert drawn.format == {"jpg": "JPEG", "png": "PNG", "webp": "WEBP"}[picture_format]
        assert min(drawn.size) == 480


def test_a_source_is_never_written_over(predictor: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photo = picture(tmp_path / "photo.jpg")
    before = photo.read_bytes()
    monkeypatch.chdir(tmp_path)
    link = tmp_path / "linked"
    link.symlink_to(tmp_path, target_is_directory=True)
    for out in (tmp_path, Path("."), link):
        with pytest.raises(RecipeError, match=r"--out: .*photo\.jpg is one of the pictures to read, and would be wri"):
            predict_files(predictor, find_pictures([photo]), out, ["objects"])
    # A result of before, among the sources now.
    picture(tmp_path / "b.png")
    with pytest.raises(RecipeError, match=r"choose another folder"):
        predict_files(predictor, find_pictures([tmp_path / "b.png", photo]), tmp_path, ["objects"])
    assert photo.read_bytes() == before
    assert names_in(tmp_path) == ["b.png", "photo.jpg"]
    # Another format is another file.
    assert predict_files(predictor, find_pictures([photo]), tmp_path, ["objects"], picture_format="png").pictures
    assert photo.read_bytes() == before


class WritingBoxes(Boxes):
    """Boxes that have files to write."""

    def files(self, prediction: Mapping[str, Tensor]) -> dict[str, bytes]:
        return {"mask.png": b"a mask"}


def test_what_else_is_written_makes_way_for_pictures_and_sources(predictor: Predictor, tmp_path: Path) -> None:
    names = ("a.bmp", "faces_similar.png", "a_objects_mask.png", "a_objects_mask-2.bmp")
    for number, name in enumerate(names):
        picture(tmp_path / name, number)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    writing = Predictor(predictor.assembly, predictor.model, predictor.device)
    writing.targets = {**predictor.targets, "objects": WritingBoxes(predictor.infos["objects"])}
    # Into the folder that is read: masks are PNG, as are sources; the sheet has the name of a picture.
    result = predict_files(writing, find_pictures([tmp_path]), tmp_path, picture_format="webp")
    assert {path: path.read_bytes() for path in before} == before
    assert len(set(result.pictures)) == len(result.pictures) == 4 + 4 + 1
    by_name = {Path(said["source"]).name: said for said in result.described}
    first = by_name["a.bmp"]
    assert first["picture"] == str(tmp_path / "a.webp")
    assert first["files"] == {"objects": [str(tmp_path / "a_objects_mask-2.png")]}
    assert Path(first["files"]["objects"][0]).read_bytes() == b"a mask"
    assert by_name["faces_similar.png"]["picture"] == str(tmp_path / "faces_similar.webp")
    assert result.pictures[-1] == tmp_path / "faces_similar-2.webp"
    assert all(path.is_file() for path in result.pictures)


DETECTOR = """
import torch
class Finder:
    def __call__(self, image):
        if image.float().mean() < 90:
            return None
        h, w = image.shape[1:]
        return torch.tensor([[.34, .46], [.66, .46], [.5, .64], [.37, .82], [.63, .82]]) * torch.tensor([w, h])
"""


@pytest.fixture
def joint(tmp_path: Path, small: Small, monkeypatch: pytest.MonkeyPatch) -> Predictor:
    """Faces, aligned by a detector that finds none in dark pictures, and objects; by two workers."""
    (tmp_path / "finder.py").write_text(DETECTOR, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    plain = toy_recipe({}, workers=2)
    plain["tasks"] = {
        "faces": {
            "dataset": {"name": "lfw", "root": str(small.faces)}, "loss": "softmax", "size": 32, "batch_size": 4,
            "transform": {"name": "face-align", "detector": "./finder.py:Finder"}, "metrics": ["face-verification"],
            "head": {"name": "embedding", "dim": 8},
        },
        "objects": {
            "dataset": {"name": "coco", "root": str(small.objects)}, "transform": "letterbox", "loss": "detection",
            "head": {"name": "dense", "width": 8, "depth": 0, "score_threshold": 0.0, "max_detections": 3},
            "metrics": ["coco-ap"], "size": 64, "batch_size": 4,
        },
    }  # fmt: skip
    torch.manual_seed(0)
    assembly = Assembly(Recipe.from_plain(plain).check())
    return Predictor(assembly, assembly.model(), torch.device("cpu"))


def test_sixty_pictures_in_nested_folders_with_equal_names(joint: Predictor, tmp_path: Path) -> None:
    root, out, dark = tmp_path / "in", tmp_path / "out", set[str]()
    for number in range(60):
        folder = root / f"{number % 3}" / f"{number // 3 % 4}"
        path = picture(folder / f"photo{number // 12}.{('png', 'jpg')[number % 2]}", number, (40 + number, 50))
        if number % 10 == 7:
            # No face in it.
            Image.new("RGB", (60, 50), (20, 20, 20)).save(path)
            dark.add(str(path))
    damaged = next(path for path in sorted(root.rglob("*.jpg"))[5:] if str(path) not in dark)
    damaged.write_bytes(damaged.read_bytes()[:200])
    sources = find_pictures([root])
    assert (len(sources), len(dark)) == (60, 6)
    assert Counter(Path(source.name).name for source in sources) == {f"photo{number}": 12 for number in range(5)}

    result = predict_files(joint, sources, out, batch_size=7)

    said = [row["source"] for row in result.described]
    kept = [str(source.file) for source in sources if str(source.file) not in dark | {str(damaged)}]
    assert said == kept
    assert len(result.unreadable) == 60 - len(kept)
    assert {reason.partition(":")[0] for reason in result.unreadable} == dark | {str(damaged)}
    assert sum("the detector finds no face in it" in reason for reason in result.unreadable) == len(dark)
    names = {str(source.file): source.name for source in sources}
    assert names_in(out) == sorted([*(f"{names[file]}.jpg" for file in kept), "faces_similar.jpg"])
    assert result.embeddings["faces"].shape == (len(kept), 8)
    # Each is what it is by itself.
    for row in (0, len(kept) // 2, len(kept) - 1):
        alone = joint.predict(kept[row])
        torch.testing.assert_close(result.embeddings["faces"][row], alone["faces"]["embedding"], atol=1e-5, rtol=0)
        described = result.described[row]
        shown, expected = described["tasks"]["objects"], joint.describe("objects", alone["objects"])
        assert [found["label"] for found in shown] == [found["label"] for found in expected]
        for one, other in zip(shown, expected, strict=True):
            assert one["box"] == pytest.approx(other["box"], abs=0.05)
        with Image.open(kept[row]) as source, Image.open(described["picture"]) as drawn:
            assert drawn.width / drawn.height == pytest.approx(source.width / source.height, rel=0.01)


def test_a_picture_is_made_an_input_once_where_nothing_is_left_out(joint: Predictor, tmp_path: Path) -> None:
    calls: Counter[str] = Counter()

    def counted(name: str, transform: Any) -> Any:
        def made(samples: Any, rng: Any) -> Any:
            calls[name] += len(samples)
            return transform(samples, rng)

        made.decode_size = transform.decode_size
        return made

    transforms = {tasks: counted(tasks[0], its) for tasks, its in joint.transforms().items()}
    light = [picture(tmp_path / f"{number}.png", number) for number in range(3)]
    found = FilePictures(light, transforms, 4)[0]
    assert not isinstance(found, MtframeError)
    assert calls == {"faces": 3, "objects": 3}
    assert {tasks: len(batch) for tasks, batch in found.batches.items()} == {("faces",): 3, ("objects",): 3}
    # Whatever a later transform refuses is no longer in what an earlier one has made.
    Image.new("RGB", (60, 50)).save(tmp_path / "dark.png")
    mixed = FilePictures([*light, tmp_path / "dark.png"], dict(reversed(transforms.items())), 4)[0]
    assert not isinstance(mixed, MtframeError)
    assert mixed.names == [str(path) for path in light]
    assert {len(batch) for batch in mixed.batches.values()} == {3}
    assert len(mixed.unreadable) == 1
    nothing = FilePictures([tmp_path / "dark.png"], dict(reversed(transforms.items())), 4)[0]
    assert not isinstance(nothing, MtframeError)
    assert (nothing.names, nothing.batches, len(nothing.unreadable)) == ([], {}, 1)


def test_memory_holds_a_batch_and_a_few_pictures_to_draw_however_many_there_are(
    predictor: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Drawing is slow here: the network waits for it, and does not pile up what is to be drawn."""
    for number in range(40):
        picture(tmp_path / "in" / f"{number:02}.png", number)
    lock, counts, most = threading.Lock(), Counter[str](), Counter[str]()
    real_draw, real_sample, real_marks = files_module._draw, pictures_module.samples_of, files_module.marks_of

    def note(**changes: int) -> None:
        with lock:
            counts.update(changes)
            for what, value in (
                ("read", counts["read"] - counts["said"]),
                ("waiting", counts["said"] - counts["drawn"]),
            ):
                most[what] = max(most[what], value)

    def draw(*arguments: Any) -> Path:
        time.sleep(0.02)
        path = real_draw(*arguments)
        note(drawn=1)
        return path

    def read(*arguments: Any) -> Any:
        note(read=1)
        return real_sample(*arguments)

    def marks(*arguments: Any) -> Any:
        note(said=1)
        return real_marks(*arguments)

    monkeypatch.setattr(files_module, "_draw", draw)
    monkeypatch.setattr(files_module, "marks_of", marks)
    monkeypatch.setattr(pictures_module, "samples_of", read)
    result = predict_files(predictor, find_pictures([tmp_path / "in"]), tmp_path / "out", ["objects"], batch_size=4)
    assert len(result.described) == counts["drawn"] == 40
    assert most["read"] <= 4
    assert most["waiting"] <= files_module._WAITING + files_module._DRAWING + 1
    assert [path.name for path in result.pictures] == [f"{number:02}.jpg" for number in range(40)]


class Said(dict[str, Any]):
    """A description of which one can tell whether anybody has it."""


@pytest.mark.parametrize("options", [[], ["--json"]], ids=["text", "json"])
def test_the_command_keeps_nothing_of_a_picture_that_it_has_told(
    small_run: Path, here: Path, monkeypatch: pytest.MonkeyPatch, options: list[str]
) -> None:
    for number in range(40):
        picture(here / "in" / f"{number:02}.png", number)
    alive, most, embeddings, kept = weakref.WeakSet[Any](), 0, list[weakref.ref[Tensor]](), 0
    real, embedded = files_module.described_in_json, similar_module.SimilarPictures.add

    def described(*arguments: Any) -> Said:
        nonlocal most
        said = Said(real(*arguments))
        said.__dict__["id"] = Hashed(said)
        alive.add(said.__dict__["id"])
        most = max(most, len(alive))
        return said

    def add(similar: Any, source: Source, embedding: Tensor) -> None:
        nonlocal kept
        vector = embedding.clone()
        embeddings.append(weakref.ref(vector))
        embedded(similar, source, vector)
        kept = max(kept, sum(one() is not None for one in embeddings))

    monkeypatch.setattr(files_module, "described_in_json", described)
    monkeypatch.setattr(similar_module.SimilarPictures, "add", add)
    monkeypatch.setattr(similar_module, "_ROWS", 2)
    result = mtframe("predict", small_run, "in", "--out", "seen", "--format", "png", *options)
    assert (result.code, result.err) == (0, "")
    assert 2 <= most <= files_module._WAITING + 3
    # Two rows with four others each.
    assert 2 <= kept <= 2 * 5 + 1
    if options:
        rows = json.loads(result.out)
        assert [row["source"] for row in rows] == [f"in/{number:02}.png" for number in range(40)]
        assert result.out == json.dumps(rows, indent=2) + "\n"
    else:
        assert result.out.splitlines() == [
            *(f"wrote seen/{number:02}.png" for number in range(40)), "wrote seen/faces_similar.png"
        ]  # fmt: skip


class Hashed:
    """Lives as long as its description does."""

    def __init__(self, said: Said) -> None:
        self.file = said["source"]


def test_json_of_nothing_is_an_empty_list(small_run: Path, here: Path) -> None:
    (here / "cut.jpg").write_bytes(b"\xff\xd8\xff\xe0 no more")
    result = mtframe("predict", small_run, "cut.jpg", "--out", "seen", "--json")
    assert (result.code, result.out) == (1, "[]\n")


def test_json_that_breaks_off_is_not_closed_and_says_so(
    small_run: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(30):
        picture(here / "in" / f"{number:02}.png", number)
    real = files_module.described_in_json

    def described(predictor: Any, file: str, *arguments: Any) -> dict[str, Any]:
        if "29" in file:
            raise MtframeError("enough")
        return real(predictor, file, *arguments)

    monkeypatch.setattr(files_module, "described_in_json", described)
    result = mtframe("predict", small_run, "in", "-t", "objects", "--out", "seen", "--json")
    assert result.code == 1
    first, second = result.err.splitlines()
    described = int(re.fullmatch(r"the JSON is incomplete: it tells of (\d+) of 30 files", first)[1])  # type: ignore[index]
    assert 29 - files_module._WAITING <= described <= 29
    assert second == "error: enough"
    assert len(json.loads(result.out + "]")) == described
    with pytest.raises(ValueError, match="delimiter"):
        json.loads(result.out)


def test_a_picture_of_the_gallery_is_never_written_over(
    small_run: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = picture(here / "gal" / "anna" / "a.jpg")
    picture(here / "in" / "a.jpg", 1)
    before = known.read_bytes()
    calls: list[str] = []
    monkeypatch.setattr(Predictor, "predict_batches", lambda *_: calls.append("predicted"))
    for out in ("gal/anna", "./gal/../gal/anna"):
        result = mtframe("predict", small_run, "in", "--gallery", "gal", "--out", out)
        assert result.code == 2
        assert "anna/a.jpg is one of the pictures to read, and would be written over" in result.err
    assert not calls
    assert known.read_bytes() == before
    monkeypatch.undo()
    monkeypatch.chdir(here)
    # What is beside the pictures makes way.
    picture(here / "gal" / "anna" / "faces_similar.jpg", 2)
    picture(here / "in" / "b.jpg", 1)
    before = (here / "gal" / "anna" / "faces_similar.jpg").read_bytes()
    result = mtframe(
        "predict", small_run, "in/b.jpg", "in/a.jpg", "--gallery", "gal", "--out", "gal/anna", "--format", "png"
    )
    assert result.code == 0
    assert (here / "gal" / "anna" / "faces_similar.jpg").read_bytes() == before


def test_a_picture_that_cannot_be_encoded_is_named_and_the_others_go_on(small_run: Path, here: Path) -> None:
    picture(here / "in" / "a.png")
    Image.new("RGB", (20_000, 40)).save(here / "in" / "b.png")
    picture(here / "in" / "c.png")
    result = mtframe("predict", small_run, "in", "--out", "seen", "--format", "webp", "--json")
    assert result.code == 1
    assert re.fullmatch(r"not written: in/b\.png: seen/b\.webp could not be written \(.*\); choose .*\n", result.err)
    rows = json.loads(result.out)
    assert [row.get("picture") for row in rows] == ["seen/a.webp", None, "seen/c.webp"]
    assert names_in(here / "seen") == ["a.webp", "c.webp", "faces_similar.webp"]


def test_what_keeps_one_file_from_being_written_is_named_and_the_others_go_on(
    predictor: Predictor, tmp_path: Path
) -> None:
    for name in ("a", "b", "c"):
        picture(tmp_path / "in" / f"{name}.png")
    # As of an earlier call, with other pictures.
    for taken in ("b.jpg", "c_objects_mask.png", "faces_similar.jpg"):
        (tmp_path / "out" / taken).mkdir(parents=True)
    writing = Predictor(predictor.assembly, predictor.model, predictor.device)
    writing.targets = {**predictor.targets, "objects": WritingBoxes(predictor.infos["objects"])}
    result = predict_files(writing, find_pictures([tmp_path / "in"]), tmp_path / "out")
    assert [reason.partition(": ")[0] for reason in result.unwritten] == [
        str(tmp_path / "in" / "c.png"), str(tmp_path / "in" / "b.png"), "faces_similar.jpg"
    ]  # fmt: skip
    assert all("could not be written (Is a directory)" in reason for reason in result.unwritten)
    assert [("picture" in said, "files" in said) for said in result.described] == [
        (True, True), (False, True), (True, False)
    ]  # fmt: skip
    assert names_in(tmp_path / "out") == ["a.jpg", "a_objects_mask.png", "b_objects_mask.png", "c.jpg"]


def test_a_full_disk_stops_with_the_name_of_what_did_not_fit(
    predictor: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(20):
        picture(tmp_path / "in" / f"{number:02}.png", number)
    fill(monkeypatch)
    with pytest.raises(MtframeError, match=r"\d\d\.jpg could not be written \(No space left on device\)"):
        predict_files(predictor, find_pictures([tmp_path / "in"]), tmp_path / "out", ["objects"])


def test_a_strip_that_no_jpeg_can_hold_says_so(tmp_path: Path) -> None:
    strip = Image.new("RGB", (66_000, 2))
    with pytest.raises(MtframeError, match=r"a\.jpg could not be written \(Maximum .*\); choose another format"):
        save_picture(strip, tmp_path / "a.jpg")
    save_picture(strip, tmp_path / "a.png")


def test_the_command_takes_a_format_and_names_what_it_leaves_out(small_run: Path, here: Path) -> None:
    picture(here / "in" / "a" / "photo.png")
    picture(here / "in" / "b" / "photo.png")
    (here / "in" / "b" / "cut.jpg").write_bytes(b"\xff\xd8\xff\xe0 no more")
    result = mtframe("predict", small_run, "in", "-t", "objects", "--format", "webp", "--out", "seen")
    assert result.code == 1
    assert result.out.splitlines() == ["wrote seen/a/photo.webp", "wrote seen/b/photo.webp"]
    assert result.err.splitlines() == ["skipped in/b/cut.jpg: its JPEG header is damaged or cut off"]
    wrong = mtframe("predict", small_run, "in", "--format", "gif")
    assert wrong.code == 2
    assert "'gif' is not one of 'jpg', 'png', 'webp'" in " ".join(wrong.err.replace("│", "").split())


@of_unicode
@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_names_that_the_terminals_encoding_lacks_are_printed_escaped(
    small_run: Path, here: Path, monkeypatch: pytest.MonkeyPatch, encoding: str
) -> None:
    # The last one as of a name on disk that is no UTF-8.
    for number, name in enumerate(("größe", "日本", "bad\udce9")):
        picture(here / "in" / f"{number}{name}.png", number)
    (here / "in" / "leer-日本.jpg").touch()
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding=encoding) for _ in range(2))
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", out)
        patch.setattr(sys, "stderr", err)
        patch.setattr(sys, "argv", ["mtframe", "predict", str(small_run), "in", "-t", "objects", "--out", "seen"])
        with pytest.raises(SystemExit) as stop:
            main()
        out.flush()
        err.flush()
    assert stop.value.code == 1
    printed = out.buffer.getvalue().decode(encoding)  # type: ignore[attr-defined]
    shown = [line.encode(encoding, "backslashreplace").decode(encoding) for line in ("0größe", "1日本", "2bad\udce9")]
    assert printed.splitlines() == [f"wrote seen/{name}.jpg" for name in shown]
    assert b"skipped in/leer-" in err.buffer.getvalue()  # type: ignore[attr-defined]
