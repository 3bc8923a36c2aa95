"""A trained run on pictures, and what is drawn of it."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image, ImageColor

from mtframe.assembly import Assembly
from mtframe.data import DataInfo, SplitBatches
from mtframe.drawing import caption, contact_sheet, draw_marks, save_picture, similarity_sheet
from mtframe.errors import BadImageError, MtframeError, RecipeError
from mtframe.inference import (
    FilePredictions,
    Gallery,
    Predictor,
    check_embeddings_file,
    embedding_tasks,
    find_pictures,
    load_run,
    predict_files,
    prediction_sheet,
    save_embeddings,
)
from mtframe.inference._pictures import FilePictures, samples_of
from mtframe.marks import Bar, Box, Mark, Point, Polyline, Text
from mtframe.palette import COLOURS
from mtframe.recipe import Recipe
from mtframe_classification.targets import Label, Value
from small import Small
from toy import toy_recipe

COLOUR_0 = ImageColor.getrgb(COLOURS[0])


def black(width: int, height: int) -> Image.Image:
    return Image.new("RGB", (width, height))


def opened(path: Path) -> Image.Image:
    with Image.open(path) as picture:
        return picture.convert("RGB")


def draw_boxes(
    picture: Image.Image, boxes: Any, texts: Sequence[str], colours: Sequence[int], **how: Any
) -> Image.Image:
    """With boxes on it: XYXY, each with a label and the number of a colour."""
    rows = zip(torch.as_tensor(boxes).tolist(), texts, colours, strict=True)
    return draw_marks(picture, {"things": [Box(tuple(box), text, colour) for box, text, colour in rows]}, **how)


def painted(picture: Image.Image, colour: tuple[int, ...] = COLOUR_0) -> np.ndarray:
    """(H, W) bool: the pixels of exactly that colour."""
    return (np.asarray(picture) == colour).all(axis=2)


@pytest.mark.parametrize("side", [300, 3000])
def test_boxes_and_labels_are_legible_on_small_and_large_pictures(side: int) -> None:
    part = side / 10
    drawn = draw_boxes(black(side, side), torch.tensor([[3, 4, 8, 9]]) * part, ["cat 0.93"], [0])
    factor = drawn.width / side
    assert drawn.size == ((480, 480) if side == 300 else (3000, 3000))
    found = painted(drawn)
    rows, columns = np.flatnonzero(found.any(axis=1)), np.flatnonzero(found.any(axis=0))
    # The outline is where the box is, and thick enough to be seen.
    assert columns[0] == pytest.approx(3 * part * factor, abs=2)
    assert columns[-1] == pytest.approx(8 * part * factor, abs=2)
    assert rows[-1] == pytest.approx(9 * part * factor, abs=2)
    thickness = found[int(6.5 * part * factor), : int(5 * part * factor)].sum()
    assert 0.002 <= thickness / drawn.width <= 0.008
    # What is above the box is the label: a thirtieth or so of the picture.
    height = 4 * part * factor - rows[0]
    assert 1 / 45 <= height / drawn.height <= 1 / 15


@pytest.mark.parametrize("x", [-40, 0, 150, 299, 305])
@pytest.mark.parametrize("y", [-40, 0, 150, 299, 305])
def test_the_label_of_a_box_of_one_pixel_is_whole_wherever_it_is(x: int, y: int) -> None:
    def label_pixels(x: int, y: int) -> int:
        box = torch.tensor([[x, y, x + 1, y + 1]])
        return int(painted(draw_boxes(black(300, 300), box, ["aeroplane 0.50"], [0])).sum())

    # The outline, a tenth of what is painted here, may lie outside of the picture.
    assert label_pixels(x, y) >= 0.9 * label_pixels(150, 150)


def test_a_small_box_is_drawn_over_a_large_one_whatever_their_order() -> None:
    boxes, labels = torch.tensor([[10.0, 10, 490, 490], [100, 10, 140, 40]]), ["large", "small"]
    one = draw_boxes(black(500, 500), boxes, labels, [0, 1])
    other = draw_boxes(black(500, 500), boxes.flip(0), labels[::-1], [1, 0])
    assert one.tobytes() == other.tobytes()


def test_eighty_classes_have_colours_of_their_own() -> None:
    box = torch.tensor([[100.0, 100, 300, 300]])
    drawn = {draw_boxes(black(500, 500), box, ["x"], [label]).tobytes() for label in range(80)}
    assert len(drawn) == 80


@pytest.mark.parametrize("size", [(60, 40), (640, 480), (3000, 2000)])
def test_a_tile_is_as_large_as_asked_and_its_box_in_place(size: tuple[int, int]) -> None:
    width, height = size
    box = torch.tensor([[width / 4, height / 4, width / 2, height / 2]])
    drawn = draw_boxes(black(*size), box, [""], [0], longest=320)
    assert drawn.size == (320, round(320 * height / width))
    rows, columns = np.nonzero(painted(drawn))
    # The lines are a few pixels wide, and there is an empty label above the box.
    assert abs(columns.min() - 80) <= 2
    assert abs(columns.max() - 160) <= 2
    assert abs(rows.max() - drawn.height / 2) <= 2


def test_without_boxes_it_is_a_copy() -> None:
    picture = black(600, 500)
    drawn = draw_boxes(picture, torch.empty(0, 4), [], [])
    assert drawn.tobytes() == picture.tobytes()
    assert drawn is not picture


@pytest.mark.parametrize("size", [(3000, 1), (1, 3000), (1, 1), (200, 3)])
def test_strips_are_drawn_without_becoming_gigabytes(size: tuple[int, int]) -> None:
    drawn = draw_boxes(black(*size), torch.tensor([[0.0, 0, 1, 1]]), ["a long label 0.99"], [3])
    assert max(drawn.size) <= max(3000, 1920)


def tile(sheet: Image.Image, row: int, column: int) -> tuple[int, ...]:
    pixel = sheet.getpixel((8 + column * 208 + 100, 8 + row * 228 + 100))
    assert isinstance(pixel, tuple)
    return pixel


def test_a_row_of_the_similarity_sheet_is_ordered_by_cosine_with_a_bar_as_long_as_it() -> None:
    colours = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255)}
    pictures = [Image.new("RGB", (50, 50), colour) for colour in colours.values()]
    embeddings = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]])
    sheet = similarity_sheet(pictures, list(colours), embeddings)
    assert sheet.size == (3 * 208 + 8, 3 * 228 + 8)
    order = [["red", "green", "blue"], ["green", "red", "blue"], ["blue", "green", "red"]]
    assert [[tile(sheet, row, column) for column in range(3)] for row in range(3)] == [
        [colours[name] for name in row] for row in order
    ]
    bar = painted(sheet, ImageColor.getrgb(COLOURS[5]))[8 + 197]
    assert bar[8:208].sum() == 0
    assert bar[216:416].sum() == pytest.approx(160, abs=2)
    assert bar[424:624].sum() <= 1
    assert torch.equal(embeddings, torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]]))


def test_a_contact_sheet_keeps_proportions_and_shortens_captions() -> None:
    wide = Image.new("RGB", (100, 20), (255, 0, 0))
    sheet = contact_sheet([wide] * 3, ["short", "c" * 99, ""], columns=2, tile=100)
    assert sheet.size == (2 * 108 + 8, 2 * 128 + 8)
    red = painted(sheet, (255, 0, 0))
    assert red[8:108, 8:108].sum() == 100 * 20
    assert red.sum() == 3 * 100 * 20
    # A caption stays below its own picture.
    assert (np.asarray(sheet)[108:128, 216:] == 255).all()


@pytest.fixture(scope="module")
def predictor(small_run: Path) -> Predictor:
    return load_run(small_run, device="cpu")


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("photos") / "photo.png"
    pixels = np.random.default_rng(0).integers(0, 255, (70, 110, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def test_a_file_a_pillow_image_and_a_tensor_give_the_same(predictor: Predictor, photo: Path) -> None:
    picture = opened(photo)
    pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1)
    expected = predictor.predict(photo)
    for form in (str(photo), picture, picture.convert("RGBA"), pixels):
        given = predictor.predict(form)
        assert given.keys() == expected.keys() == {"faces", "objects"}
        for task in expected:
            assert all(torch.equal(given[task][key], expected[task][key]) for key in expected[task])


def test_predictions_are_boxes_in_the_picture_and_embeddings_of_unit_length(
    predictor: Predictor, photo: Path, small: Small
) -> None:
    found = predictor.predict(photo)
    boxes, scores, labels = (found["objects"][key] for key in ("boxes", "scores", "labels"))
    assert len(boxes) == len(scores) == len(labels) > 0
    assert boxes.min() >= 0
    assert (boxes <= torch.tensor([110, 70, 110, 70])).all()
    assert (boxes[:, 2:] >= boxes[:, :2]).all()
    assert found["faces"]["embedding"].shape == (16,)
    assert found["faces"]["embedding"].norm().item() == pytest.approx(1, abs=1e-5)
    described = json.loads(json.dumps(predictor.describe("objects", found["objects"])))
    assert described[0]["label"] == predictor.infos["objects"].classes[int(labels[0])]
    assert described[0]["box"] == pytest.approx(boxes[0].tolist(), abs=0.01)
    assert len(predictor.describe("faces", found["faces"])["embedding"]) == 16


def test_only_the_tasks_that_are_asked_for_run(predictor: Predictor, photo: Path) -> None:
    assert predictor.predict(photo, ["faces"]).keys() == {"faces"}
    with pytest.raises(RecipeError, match=r"-t faecs: no such task; the tasks of this run are faces, objects"):
        predictor.predict(photo, ["faecs"])


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether two predictions of all tasks are equal."""
    return one.keys() == other.keys() and all(
        torch.equal(one[task][key], other[task][key]) for task in other for key in other[task]
    )


def test_arrays_and_lists_of_everything_that_is_a_picture_give_what_the_file_gives(
    predictor: Predictor, photo: Path
) -> None:
    picture = opened(photo)
    array = np.asarray(picture)
    tensor = torch.from_numpy(array.copy()).permute(2, 0, 1)
    forms = [
        photo, str(photo), picture, array, tensor, array[..., ::-1][..., ::-1], tensor.contiguous(), array / 255,
        array.astype(np.float32), array.astype(np.uint16) * 257, tensor / 255, array.astype(np.int64),
    ]  # fmt: skip
    expected = predictor.predict(photo)
    for form in forms:
        assert same(predictor.predict(form), expected)
    # A tuple is a list, and a batch is several pictures.
    for many in (predictor.predict([photo, picture]), predictor.predict((array, tensor))):
        assert isinstance(many, list)
        assert len(many) == 2
    alone = [next(predictor.predict_many([form], batch_size=1)) for form in (array, tensor)]
    assert all(same(one, expected) for one in alone)
    for batch in (np.stack([array, array]), torch.stack([tensor, tensor])):
        assert len(list(predictor.predict_many(batch))) == 2
    assert len(list(predictor.predict_many(form for form in forms))) == len(forms)
    assert list(predictor.predict_many([])) == []


def test_what_is_no_picture_is_refused(predictor: Predictor, tmp_path: Path) -> None:
    with pytest.raises(BadImageError, match="No such file"):
        predictor.predict(tmp_path / "none.jpg")
    good = np.zeros((8, 8, 3), np.uint8)
    for wrong, reason in (
        (torch.zeros(8, 8, 3, dtype=torch.uint8), r"^the picture: expected a tensor of channels x.*its channels last"),
        (np.zeros((3, 8, 8)), r"^the picture: expected height x width x channels.*its channels first"),
        (torch.zeros(2, 3, 8, 8), r"^the picture: .*got 2 x 3 x 8 x 8; give several pictures as a list"),
        (np.full((8, 8), np.nan), r"^the picture: has 64 of 64 numbers that are nan"),
        (torch.randn(3, 8, 8), r"^the picture: has floats from -.*it looks normalised"),
        (b"\xff\xd8", r"^the picture: expected a Pillow image, an array or a tensor, got bytes"),
        (None, r"^the picture: expected a Pillow image, an array or a tensor, got NoneType"),
        ([], r"^predict: expected a picture or a list of pictures, got an empty list"),
        ([good, None], r"^picture 1: expected a Pillow image, an array or a tensor, got NoneType"),
        ([[good]], r"^picture 0: expected a Pillow image, an array or a tensor, got list"),
        ([good, good.astype(complex)], r"^picture 1: expected booleans, integers or floats, got complex128"),
        ((form for form in [good]), r"^predict: expected a picture or a list.*got generator; predict_many takes any"),
    ):
        with pytest.raises(MtframeError, match=reason):
            predictor.predict(wrong)  # type: ignore[call-overload]
    with pytest.raises(BadImageError, match=r"^camera 2: has no pixels"):
        predictor.predict(Image.new("RGB", (0, 0)), name="camera 2")
    for wrong, reason in (
        ("photo.png", r"^predict_many: expected several pictures, got str 'photo.png'; predict takes a single one"),
        (tmp_path, r"^predict_many: expected several pictures, got \w*Path; predict takes a single one"),
        (good, r"^predict_many: expected several pictures, got ndarray of 8 x 8 x 3; predict takes a single one"),
        (torch.zeros(3, 8, 8), r"^predict_many: .*got Tensor of 3 x 8 x 8; predict takes a single one"),
        (black(4, 4), r"^predict_many: expected several pictures, got Image; predict takes a single one"),
        (7, r"^predict_many: expected several pictures, got int"),
    ):
        # At once, not when the first answer is asked for.
        with pytest.raises(RecipeError, match=reason):
            predictor.predict_many(wrong)
    for size in (0, -1, 2.0, None, True):
        with pytest.raises(RecipeError, match=f"^predict_many: batch_size must be a positive integer, got {size}"):
            predictor.predict_many([good], batch_size=size)  # type: ignore[arg-type]
    later = predictor.predict_many([good, np.zeros((3, 9, 9))], batch_size=1)
    assert next(later).keys() == {"faces", "objects"}
    with pytest.raises(BadImageError, match=r"^picture 1: expected height x width x channels"):
        next(later)


@pytest.mark.parametrize("tasks", ["faces", [], (), ["faces", "f"], [3]])
def test_tasks_are_a_list_of_those_of_the_run(predictor: Predictor, tasks: Any) -> None:
    named = r"no such task; the tasks of this run are faces, objects$"
    listed = r"^tasks: expected a list of one or more of faces, objects, or None for all, got "
    for ask in (predictor.predict, lambda it, tasks: predictor.predict_many([it], tasks)):
        with pytest.raises(RecipeError, match=f"{named}|{listed}"):
            ask(np.zeros((8, 8, 3), np.uint8), tasks)
    with pytest.raises(RecipeError, match=f"{named}|{listed}"):
        predictor.evaluate_many(tasks)


def test_all_tasks_together_see_the_pixels_that_each_of_them_is_evaluated_on(
    small: Small, small_run: Path, tmp_path: Path
) -> None:
    """A JPEG so large that it is decoded smaller, for one task less so than for another."""
    shutil.copytree(small.objects, tmp_path / "objects")
    (picture, *_) = (tmp_path / "objects" / "val2017").iterdir()
    with Image.open(picture) as image:
        size = image.size
    noise = np.random.default_rng(0).integers(0, 255, (size[1] * 8, size[0] * 8, 3), np.uint8)
    Image.fromarray(noise).save(picture, "JPEG", quality=90)
    annotations = tmp_path / "objects" / "annotations" / "instances_val2017.json"
    plain = json.loads(annotations.read_text())
    for row in plain["images"]:
        if row["file_name"] == picture.name:
            row["width"], row["height"] = size[0] * 8, size[1] * 8
    annotations.write_text(json.dumps(plain))
    loaded = load_run(small_run, device="cpu", overrides=[f"tasks.objects.dataset.root={tmp_path / 'objects'}"])
    sizes = {transform.decode_size for transform in loaded.transforms().values()}
    assert len(sizes) == 2, "the tasks ask for one size; this shows nothing"
    dataset = loaded.assembly.readable("objects", "val")
    (sample,) = (
        it for it in (dataset[place] for place in range(len(dataset))) if it.size == (size[1] * 8, size[0] * 8)
    )
    seen = samples_of(picture, loaded.transforms())
    assert len({tuple(its.image.shape) for its in seen.values()}) == 2
    assert torch.equal(seen["objects",].image, sample.image)
    together = loaded.predict(picture)
    for task in ("faces", "objects"):
        for key, value in loaded.predict(picture, [task])[task].items():
            # Rows of one batch are rounded like no others.
            torch.testing.assert_close(value, together[task][key], rtol=1e-4, atol=1e-2)
    batch = FilePictures([picture], loaded.transforms(), 1)[0].batches["objects",]
    scored = SplitBatches("objects", dataset, loaded.assembly.transform("objects", train=False), 1)[sample.index]
    assert torch.equal(batch.images, scored.images)


def test_the_smallest_picture_can_be_predicted(predictor: Predictor) -> None:
    found = predictor.predict(black(1, 1))
    assert torch.isfinite(found["faces"]["embedding"]).all()
    assert (found["objects"]["boxes"] <= 1).all()


def test_the_sheet_of_similar_pictures_compares_all_files(
    predictor: Predictor, photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = []
    for number in range(15):
        files.append(tmp_path / f"{number:02d}.png")
        Image.new("RGB", (64, 64), (17 * number, 255 - 17 * number, 90)).save(files[-1])
    opened(photo).save(files[0])
    opened(photo).save(files[14])
    captions: list[str] = []

    def sheet(images: list[Image.Image], names: list[str], **options: object) -> Image.Image:
        captions.extend(names)
        return contact_sheet(images, names, **options)  # type: ignore[arg-type]

    monkeypatch.setattr("mtframe.drawing._sheets.contact_sheet", sheet)
    predict_files(predictor, find_pictures(files), tmp_path / "out", ["faces"])
    assert [len(captions), captions[0], captions[1]] == [12 * 5, "00", "1.00  14"]
    assert captions[::5] == [f"{number:02d}" for number in range(12)]


def test_a_phones_picture_is_predicted_upright(predictor: Predictor, photo: Path, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    opened(photo).save(tmp_path / "stored.png", exif=exif)
    opened(photo).transpose(Image.Transpose.ROTATE_270).save(tmp_path / "seen.png")
    files = find_pictures([tmp_path / "stored.png", tmp_path / "seen.png"])
    result = predict_files(predictor, files, tmp_path / "out", picture_format="png", batch_size=1)
    stored, seen = result.described
    assert stored["size"] == seen["size"] == [110, 70]
    assert stored["tasks"] == seen["tasks"]
    assert opened(result.pictures[0]).tobytes() == opened(result.pictures[1]).tobytes()
    with Image.open(tmp_path / "stored.png") as picture:
        again = predictor.predict(picture)
    assert {task: predictor.describe(task, found) for task, found in again.items()} == seen["tasks"]


def test_the_threshold_is_for_what_is_drawn_and_not_for_what_is_told(
    predictor: Predictor, photo: Path, tmp_path: Path
) -> None:
    all_drawn, none_drawn = (
        predict_files(predictor, find_pictures([photo]), tmp_path / name, ["objects"], least, picture_format="png")
        for name, least in (("all", 0.0), ("none", 1.0))
    )
    assert [row["tasks"] for row in all_drawn.described] == [row["tasks"] for row in none_drawn.described]
    assert len(all_drawn.described[0]["tasks"]["objects"]) == 5
    pictures = [opened(result.pictures[0]) for result in (all_drawn, none_drawn)]
    assert pictures[0].tobytes() != pictures[1].tobytes()
    assert pictures[1].tobytes() == draw_marks(opened(photo), {}).tobytes()


@pytest.mark.parametrize(("task", "count"), [("faces", 3), ("faces", 1), ("objects", 3)])
def test_a_sheet_of_predictions_has_all_samples(predictor: Predictor, task: str, count: int) -> None:
    dataset = predictor.assembly.dataset(task, "val")
    sheet = prediction_sheet(predictor, task, [dataset[n] for n in range(count)])
    columns, tile = (min(5, count), 200) if task == "faces" else (4, 340)
    rows = count if task == "faces" else 1
    assert sheet.size == (columns * (tile + 8) + 8, rows * (tile + 28) + 8)


def test_a_picture_that_cannot_be_written_is_an_error_of_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RecipeError, match=r"--out: .*file cannot be a folder \(File exists\)"):
        save_picture(black(4, 4), tmp_path / "file" / "a.png")
    with pytest.raises(RecipeError, match=r"a\.pgn has no suffix of a picture file"):
        save_picture(black(4, 4), tmp_path / "a.pgn")
    (tmp_path / "a.png").mkdir()
    with pytest.raises(MtframeError, match=r"a\.png could not be written \(Is a directory\)"):
        save_picture(black(4, 4), tmp_path / "a.png")


@pytest.mark.parametrize("side", [300, 3000])
def test_a_panel_is_legible_below_small_and_large_pictures(side: int) -> None:
    rows = [Bar("kitchen", "0.75", 0.75), Bar("bar", "0.20", 0.2), Bar("height", "181")]
    drawn = draw_marks(black(side, side), {"rooms": rows, "nothing to say": []})
    picture = 480 if side == 300 else 3000
    assert drawn.width == picture
    panel = np.asarray(drawn)[picture:]
    # A title and three lines, each a twentieth or so of the picture.
    assert 4 / 25 <= len(panel) / picture <= 7 / 20
    bars = (panel == ImageColor.getrgb(COLOURS[5])).all(axis=2).sum(axis=1)
    lengths = sorted({int(length) for length in bars if length}, reverse=True)
    assert len(lengths) == 2
    assert lengths[1] / lengths[0] == pytest.approx(0.2 / 0.75, rel=0.05)
    assert (panel < 80).all(axis=2).any(axis=1).sum() > 4 * 8


def test_names_with_letters_beyond_ascii_are_drawn_as_such() -> None:
    # What a font lacks is drawn as one and the same box.
    from mtframe.drawing._text import font_of

    drawn = {bytes(font_of(20).getmask(letter)) for letter in "ëÅřЖΩ\uffff"}
    assert len(drawn) == 6


def test_a_label_without_room_is_left_out_and_its_box_drawn() -> None:
    boxes = torch.tensor([[200.0, 200, 210, 210]] * 30)
    one = draw_boxes(black(480, 480), boxes[:1], ["thing"], [0])
    many = draw_boxes(black(480, 480), boxes, ["thing"] * 30, [0] * 30)
    label = painted(one).sum()
    # Eight places, of which some lie over one another.
    assert label < painted(many).sum() < 9 * label


def test_a_caption_may_have_several_lines() -> None:
    one, two = (contact_sheet([black(9, 9)], [text], columns=1, tile=40) for text in ("a", "a\nb"))
    assert two.height == one.height + 17


def test_the_nearest_identities_are_those_whose_mean_embedding_is_most_similar(
    predictor: Predictor, small: Small, tmp_path: Path
) -> None:
    people = sorted(folder for folder in (small.faces / "lfw-deepfunneled").iterdir() if folder.is_dir())[:3]
    for person in people:
        shutil.copytree(person, tmp_path / "gallery" / person.name)
    (tmp_path / "gallery" / people[0].name / "broken.jpg").write_bytes(b"no picture")
    (tmp_path / "gallery" / "notes.txt").touch()
    (tmp_path / "gallery" / ".cache").mkdir()
    (tmp_path / "gallery" / "nobody yet").mkdir()
    gallery = Gallery.read(predictor, "faces", tmp_path / "gallery")
    assert gallery.names == tuple(person.name for person in people)
    assert len(gallery.unreadable) == 2
    files = sorted(people[1].iterdir())
    embeddings = torch.stack([predictor.predict(file, ["faces"])["faces"]["embedding"] for file in files])
    mean = embeddings.mean(0) / embeddings.mean(0).norm()
    torch.testing.assert_close(gallery.templates[1], mean)
    found = gallery.nearest(embeddings[0])
    assert [value for _, value in found] == sorted((gallery.templates @ embeddings[0]).tolist(), reverse=True)

    photo = find_pictures(files[:1])
    result = predict_files(predictor, photo, tmp_path / "out", ["faces"], galleries={"faces": gallery})
    (described,) = result.described
    assert [row["name"] for row in described["nearest"]["faces"]] == [name for name, _ in found]
    assert [path.name for path in result.pictures] == [f"{files[0].stem}.jpg"]


def test_a_gallery_needs_folders_with_pictures_and_a_task_with_embeddings(predictor: Predictor, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="--gallery: expected a folder for each identity in"):
        Gallery.read(predictor, "faces", tmp_path)
    (tmp_path / "somebody").mkdir()
    (tmp_path / "somebody" / "a.jpg").write_bytes(b"")
    with pytest.raises(RecipeError, match=r"no picture in .* can be read"):
        Gallery.read(predictor, "faces", tmp_path)
    assert embedding_tasks(predictor, ("faces", "objects"), "--gallery") == ["faces"]
    with pytest.raises(RecipeError, match="--gallery: none of the tasks objects gives embeddings"):
        embedding_tasks(predictor, ["objects"], "--gallery")


@pytest.mark.parametrize("suffix", [".npz", ".parquet"])
def test_embeddings_are_written_beside_the_files_they_are_of(tmp_path: Path, suffix: str) -> None:
    rows = torch.nn.functional.normalize(torch.arange(6.0).reshape(2, 3) + 1)
    predictions = FilePredictions([{"source": "a.jpg"}, {"source": "ü/b.jpg"}], embeddings={"faces": rows})
    path = tmp_path / "new" / f"faces{suffix}"
    save_embeddings(predictions.embeddings, [said["source"] for said in predictions.described], path)
    if suffix == ".npz":
        with np.load(path, allow_pickle=False) as stored:
            found = {name: stored[name] for name in stored.files}
    else:
        parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")
        found = {name: np.array(column) for name, column in parquet.read_table(path).to_pydict().items()}
    assert found.keys() == {"source", "faces.embedding"}
    assert found["source"].tolist() == ["a.jpg", "ü/b.jpg"]
    np.testing.assert_array_equal(found["faces.embedding"].astype(np.float32), rows.numpy())


def test_embeddings_go_to_files_of_two_kinds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RecipeError, match=r"--embeddings: expected a file that ends with .npz or .parquet, got x.csv"):
        check_embeddings_file(Path("x.csv"))
    with pytest.raises(RecipeError, match="--embeddings: no task gave an embedding"):
        save_embeddings({}, [], tmp_path / "x.npz")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(RecipeError, match=r"pip install 'mtframe\[parquet\]'"):
        check_embeddings_file(Path("x.parquet"))


def test_classes_are_told_most_likely_first_and_numbers_by_name() -> None:
    label, value = Label(DataInfo("label", tuple("abcdefg"))), Value(DataInfo("value", ("x", "y")))
    rows = label.plain({"probabilities": torch.tensor([0.05, 0.5, 0.0, 0.2, 0.12, 0.1, 0.03])})
    assert [row["label"] for row in rows] == ["b", "d", "e", "f", "a"]
    assert rows[0]["probability"] == 0.5
    assert value.plain({"values": torch.tensor([1.5, -2.0])}) == {"x": 1.5, "y": -2.0}


def test_what_is_no_number_is_told_as_nothing() -> None:
    """JSON has no NaN, and a model that is broken should not break what reads its answers."""
    plain = toy_recipe({"one": {}})
    assembly = Assembly(Recipe.from_plain(plain), {"one": DataInfo("value", ("x", "y"))})
    predictor: Any = object.__new__(Predictor)
    predictor.targets = {"one": assembly.target("one")}
    described = predictor.describe("one", {"values": torch.tensor([torch.nan, 0.5])})
    assert json.loads(json.dumps(described, allow_nan=False)) == {"x": None, "y": 0.5}


def test_points_and_lines_are_drawn_where_they_are_in_their_colours() -> None:
    marks: list[Mark] = [
        Polyline([(100, 100), (400, 100), (400, 300)], colour=1),
        Polyline([(100, 400), (200, 400), (200, 450)], closed=True, colour=2),
        Point((300, 450), "nose", colour=0, score=0.9),
        Point((60, 60), "unsure", colour=3, score=0.1),
        Polyline([], text="of nothing"),
    ]
    drawn = np.asarray(draw_marks(black(500, 500), {"points": marks}, threshold=0.5))

    def shown(x: int, y: int, colour: int) -> bool:
        near = drawn[y - 3 : y + 4, x - 3 : x + 4]
        return bool((near == ImageColor.getrgb(COLOURS[colour])).all(axis=2).any())

    assert all(shown(x, y, 1) for x, y in ((100, 100), (250, 100), (400, 200), (400, 300)))
    assert not shown(250, 200, 1), "an open line does not return to its start"
    assert all(shown(x, y, 2) for x, y in ((150, 400), (200, 430), (150, 425)))
    assert shown(300, 450, 0)
    assert not shown(60, 60, 3), "below the threshold"


def test_a_caption_says_what_is_said_of_the_whole_and_counts_what_is_drawn() -> None:
    box, ignored = Box((0, 0, 1, 1), "cat", 0), Box((0, 0, 1, 1), "ignored", None)
    assert caption([], 3) == "-"
    assert caption([box, ignored], 3) == "1 object"
    assert caption([Text("cat"), Bar("x", "2"), box, box], 3) == "cat\nx 2\n2 objects"
    assert caption([Text("a"), Text("b"), Text("c")], 2) == "a\nand 2 more"
