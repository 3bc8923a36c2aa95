"""`mtframe predict`: what a run sees in pictures and films, drawn and as JSON."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

import typer

from mtframe.cli._app import Trusted, as_json, json_line, note, say, trust_runs
from mtframe.errors import RecipeError, one_line

if TYPE_CHECKING:
    from mtframe.inference import Gallery, Predictor
    from mtframe.video import Cut


# Part of the strangers whom a gallery may take for somebody before that is told.
_CROWDED = 0.1


def predict(
    run: Annotated[Path, typer.Argument(help="The run's folder.")],
    arguments: Annotated[
        list[str],
        typer.Argument(metavar="SOURCE|KEY=VALUE", help="Images, films, folders of them, cameras; then overrides."),
    ],
    out: Annotated[Path | None, typer.Option(help="Where pictures go (default: RUN/predictions).")] = None,
    task: Annotated[list[str] | None, typer.Option("-t", "--task", help="Only this task; may be repeated.")] = None,
    checkpoint: Annotated[str, typer.Option(help="best, last or best_TASK.")] = "best",
    threshold: Annotated[float, typer.Option(min=0, max=1, help="Minimum score of what is drawn.")] = 0.3,
    gallery: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="A folder with a folder of pictures for each name, to compare with."),
    ] = None,
    accept: Annotated[
        str | None,
        typer.Option(metavar="SIMILARITY", help="Least similarity of a match, or a name of the run's thresholds."),
    ] = None,
    embeddings: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Also write embeddings, to FILE.npz or FILE.parquet.")
    ] = None,
    picture_format: Annotated[
        Literal["jpg", "png", "webp"], typer.Option("--format", help="Format of the pictures that are written.")
    ] = "jpg",
    every: Annotated[
        str, typer.Option(metavar="N|SECONDS", help="Of films: 5 for every fifth frame, 0.5s for one each half second.")
    ] = "1",
    start: Annotated[str, typer.Option("--from", metavar="TIME", help="Of films: from here on; 90, 1:30.")] = "0",
    end: Annotated[str | None, typer.Option("--to", metavar="TIME", help="Of films and cameras: up to here.")] = None,
    files: Annotated[
        bool, typer.Option("--files", help="Of films: also write what JSON is no place for, of each frame.")
    ] = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, ...")] = "auto",
    json_output: Annotated[bool, typer.Option("--json", help="Also print every prediction as JSON.")] = False,
    json_lines: Annotated[bool, typer.Option("--json-lines", help="Likewise, each on a line of its own.")] = False,
    trust: Trusted = False,
) -> None:
    """Run a trained model on pictures, films and cameras.

    What each task sees is drawn on each picture, or stands below it; with a gallery, the most similar names do too, and
    whether the first of them is similar enough.
    For embeddings, a sheet shows each picture beside those most similar to it.
    Of a film, marks are drawn on a film, and a file of JSON lines says what is on each frame.
    A file that cannot be read is named and left out; the exit code is then 1.

    mtframe predict runs/recipe photo.jpg holiday/ --out seen

    mtframe predict runs/recipe film.mp4 --from 1:30 --to 2:00 --every 0.5s

    mtframe predict runs/recipe photo.jpg tasks.objects.test_scales=[1.0,1.5]
    """
    from mtframe import inference
    from mtframe.cli._films import FilmBar

    cut = _cut(every, start, end)
    if json_output and json_lines:
        raise RecipeError("--json and --json-lines: expected one of them")
    if embeddings is not None:
        inference.check_embeddings_file(embeddings)
    sources, overrides = _sources_and_overrides(arguments)
    trust_runs(trust, run)
    predictor = inference.load_run(run, checkpoint, device, overrides=overrides)
    found = inference.find_pictures(sources, films=True)
    chosen, folder = predictor.chosen(task or None), out or run / "predictions"
    inference.check_out(found, folder, picture_format, [] if gallery is None else inference.gallery_pictures(gallery))
    if embeddings is not None:
        inference.embedding_tasks(predictor, chosen, "--embeddings")
    if gallery is None and accept is not None:
        raise RecipeError("--accept: says who of a gallery is a match, so it needs --gallery")
    galleries = {} if gallery is None else _galleries(predictor, chosen, gallery, accept)
    read: list[str] = []
    frames: list[tuple[int, float] | None] = []
    printing = json_output or json_lines

    def take(said: dict[str, Any], written: list[Path]) -> None:
        if embeddings is not None:
            read.append(said["source"])
            frames.append((said["frame"], said["time"]) if "frame" in said else None)
        if json_lines:
            say(json_line(said))
        elif json_output:
            array.add(said)
        else:
            say([f"wrote {one_line(path)}" for path in written])

    with _JsonArray(json_output, len(found), any(source.film for source in found)) as array, FilmBar() as bar:
        result = inference.predict_files(
            predictor, found, folder, chosen, threshold, galleries, picture_format=picture_format, take=take,
            keep_embeddings=embeddings is not None, cut=cut, frame_files=files, watch=bar.watch,
        )  # fmt: skip
    if embeddings is not None:
        inference.save_embeddings(result.embeddings, read, embeddings, frames)
    if not printing:
        say([f"wrote {one_line(path)}" for path in (*result.pictures, *([embeddings] if embeddings else []))])
    for text in result.notes:
        note(one_line(text))
    for reason in (*result.unreadable, *(reason for known in galleries.values() for reason in known.unreadable)):
        say(f"skipped {one_line(reason)}", err=True)
    for reason in result.unwritten:
        say(f"not written: {one_line(reason)}", err=True)
    if result.unreadable or result.unwritten or any(known.unreadable for known in galleries.values()):
        raise typer.Exit(1)


def _cut(every: str, start: str, end: str | None) -> Cut:
    from mtframe.video import Cut, seconds

    return Cut.of(every, seconds(start, "--from"), None if end is None else seconds(end, "--to"))


class _JsonArray:
    """A JSON array on the standard output, whose elements are not kept; as json.dumps writes the list of them.

    Left by an error it stays open, so that nobody takes it for whole, and says so.

    Args:
        wanted: Whether to print it.
        files: What messages compare the number of elements with.
        films: Whether some of them are films, of which there are more elements.
    """

    def __init__(self, wanted: bool, files: int, films: bool = False) -> None:
        self._wanted, self._files, self._films, self._count = wanted, files, films, 0

    def add(self, element: Any) -> None:
        """Prints an element."""
        lines = as_json(element).replace("\n", "\n  ")
        say(f"{',' if self._count else '['}\n  {lines}", end="")
        self._count += 1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._wanted and kind is None:
            say("\n]" if self._count else "[]")
        elif self._count:
            with suppress(OSError):
                say("")
            told = f"{self._count} pictures and frames" if self._films else f"{self._count} of {self._files} files"
            say(f"the JSON is incomplete: it tells of {told}", err=True)


def _sources_and_overrides(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Sources and overrides. Raises RecipeError if there is no source."""
    # A file may have a "=" in its name, but hardly the name of a key that a recipe has.
    overrides = [argument for argument in arguments if "=" in argument and not os.path.exists(argument)]
    sources = [argument for argument in arguments if argument not in overrides]
    if not sources:
        raise RecipeError("expected an image, a film or a folder of them behind the run's folder")
    return sources, overrides


def _galleries(predictor: Predictor, tasks: Sequence[str], folder: Path, accept: str | None) -> dict[str, Gallery]:
    """The identities in a folder as each task that gives embeddings sees them. Raises RecipeError if none does."""
    from mtframe import inference

    able = inference.embedding_tasks(predictor, tasks, "--gallery")
    galleries = {name: inference.Gallery.read(predictor, name, folder, accept) for name in able}
    for name, known in galleries.items():
        if known.threshold is None:
            say(
                f"{name}: the run has no threshold, so the most similar name is shown, but nobody is rejected as "
                "unknown; say one with --accept",
                err=True,
            )
        elif said := _crowded(predictor, name, known, accept):
            say(f"{name}: {said}", err=True)
    return galleries


def _crowded(predictor: Predictor, task: str, gallery: Gallery, accept: str | None) -> str:
    """What to say of a gallery in which many strangers will be similar enough to somebody; empty for nothing."""
    thresholds = predictor.thresholds.get(task)
    told = None if thresholds is None else thresholds.gallery
    if told is not None and (known := told.values.get(told.chosen if accept is None else accept)):
        if len(gallery.names) <= known[-1].size:
            return ""
        return (
            f"there are {len(gallery.names)} in this gallery, and the run knows thresholds for up to {known[-1].size}: "
            f"that one ({gallery.threshold:.4f}) lets more strangers through here; --accept takes a stricter one"
        )
    name = accept if thresholds is None or accept is not None else thresholds.chosen
    rate = None if thresholds is None or name is None else thresholds.rates.get(name)
    count = len(gallery.names)
    # Of as many comparisons one is wrong with a probability of up to their sum.
    if thresholds is None or rate is None or count * rate < _CROWDED:
        return ""
    stricter = [other for other, value in thresholds.values.items() if value > thresholds.values[str(name)]]
    way = f"stricter are {', '.join(f'--accept {other}' for other in stricter)}, or a number" if stricter else (
        "the run has no stricter one; a number can be, as --accept 0.6"
    )  # fmt: skip
    return (
        f"many strangers will be taken for one of these {count}: each is compared with all, and at this threshold "
        f"({name}: {gallery.threshold:.4f}) {rate:.2g} of the validation's pairs of two were taken for one; {way}"
    )
