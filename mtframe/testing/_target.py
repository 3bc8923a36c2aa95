"""Checks of kinds of target."""

# Shapes: B images, H and W of an image or an input, D numbers in an embedding.

from __future__ import annotations

import json
import pickle
from collections.abc import Mapping
from dataclasses import replace
from pathlib import PurePath
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from mtframe.kinds import ChecksForm, Embeds, RatesPredictions, Survey, Surveys, Target, WritesFiles

from ._check import checks, passes_first
from ._follows import ASKED, compare, expect_left_aside, expect_whole, things, window_on
from ._form import check_findings, check_label, check_prediction, same, same_in_order
from ._marks import check_marks, same_marks
from ._placed import as_it_is, fitted, make, partial, quarter_turn, side_by_side, whole
from ._violation import Skip, Violation, expect

if TYPE_CHECKING:
    from ._subject import Subject

Prediction = Mapping[str, Tensor]

# How far numbers of a prediction may be from what they were, in their own units: some are rounded on the way.
_TOLERANCE = 0.02

# What a perfect prediction is rated at least. Images of other people are not quite unlike.
_PERFECT = 0.9


def unknown(subject: Subject) -> None:
    """`known` is false of what `unknown` gives, however its image is moved, and true of a label of its data."""
    setup = make(subject)
    target, size = setup.target, setup.samples[0].size
    for how, placement in {**whole(size), **partial(size)}.items():
        known = target.known(target.collate([setup.placed((target.unknown(), placement))]))
        right = isinstance(known, Tensor) and known.dtype == torch.bool and known.shape == (1,)
        expect(right, f"expected known() to give (B,) bool, got {known!r}")
        expect(not known[0], f"`known` is true of the label of an image of which nothing is known, {how}")
    if target.mixes:
        both = setup.placed(*((target.unknown(), placement) for placement in side_by_side(size, size)))
        expect(not target.known(target.collate([both]))[0], "`known` is true of two such images side by side")
    known = target.known(target.collate([setup.together(target.unknown(), size), *setup.labels]))
    expect(not known[0], "`known` is true of the label of an image of which nothing is known, beside others")
    expect(known[1:].any(), f"`known` is false of {len(known) - 1} labels of its data")


def collates(subject: Subject) -> None:
    """Labels of one image, of several and of none that is known make tensors of a row each, and stay as they are."""
    setup = make(subject)
    before = [{name: value.clone() for name, value in sample.target.items()} for sample in setup.samples]
    labels, nothing = setup.labels, setup.together(setup.target.unknown(), setup.samples[0].size)
    for batch in (labels[:1], labels, [nothing], [nothing, nothing], [nothing, *labels], [*labels, nothing]):
        for name, value in setup.target.collate(batch).items():
            expect(isinstance(value, Tensor), f"expected {name!r} to be a tensor, got {type(value).__name__}")
            shape, count = tuple(value.shape), len(batch)
            expect(shape[:1] == (count,), f"expected a row of {name!r} for each of {count} images, got {shape}")
    for sample, was in zip(setup.samples, before, strict=True):
        expect(same(sample.target, was), f"the label of sample {sample.index} is changed by placed() or collate()")


def there_and_back(subject: Subject) -> None:
    """What is perfect in an input, scaled, padded, mirrored, comes back as what is perfect in the original."""
    passes_first(collates, subject)
    setup = make(subject)
    for sample in setup.known:
        wanted = setup.target.restored([(setup.target.perfect(sample), as_it_is(sample.size))])
        for how, placement in whole(sample.size).items():
            back = setup.target.restored([(setup.perfect_in(sample, placement), placement)])
            _expect_same(f"sample {sample.index}, {how}", back, wanted)


def mirrored_twice(subject: Subject) -> None:
    """A prediction that is restored from the mirror image twice is what it was."""
    setup = make(subject)
    for sample, perfect in zip(setup.samples, setup.perfect, strict=True):
        wanted = setup.target.restored([(perfect, as_it_is(sample.size))])
        mirror = as_it_is(sample.size).flipped()
        back = setup.target.restored([(setup.target.restored([(wanted, mirror)]), mirror)])
        _expect_same(f"sample {sample.index}", back, wanted)


def follows_its_image(subject: Subject) -> None:
    """Marks of a placed label lie where those of the original are moved to: scaled, padded, mirrored, turned."""
    passes_first(collates, subject)
    setup = make(subject)
    compared = 0
    for sample in setup.known:
        marks = setup.target.label_marks(sample.target)
        for how, placement in {**whole(sample.size), "turned by a quarter": quarter_turn(sample.size)}.items():
            placed = setup.target.label_marks(setup.placed((sample.target, placement)))
            compared += compare(f"sample {sample.index}, {how}", marks, placed, placement)
    if not compared:
        raise Skip("marks of its labels have no place in the picture")


def min_visible(subject: Subject) -> None:
    """A thing of which less is seen than `min_visible` is not asked for, and one that is seen whole is."""
    passes_first(follows_its_image, subject)
    setup = make(subject)
    tried = 0
    for sample in setup.known:
        of, there = f"sample {sample.index}, min_visible={ASKED}", replace(as_it_is(sample.size), min_visible=ASKED)
        shown = setup.target.label_marks(setup.placed((sample.target, there)))
        for mark in things(setup.target.label_marks(sample.target), sample.size):
            expect_whole(of, mark, shown)
            cut = replace(there, window=window_on(mark, sample.size))
            left = setup.target.label_marks(setup.placed((sample.target, cut)))
            expect_left_aside(of, mark, left, cut.seen)
            tried += 1
    if not tried:
        raise Skip("marks of its labels are no boxes and lines, of which a part can be seen")


def several_in_one(subject: Subject) -> None:
    """With `mixes`, images side by side are drawn as each alone is, and one that is covered is not drawn."""
    passes_first(collates, subject)
    setup = make(subject)
    target = setup.target
    if not target.mixes:
        raise Skip("its `mixes` is False: transforms that make one image of several are refused for it")
    for one, other in zip(setup.samples, [*setup.samples[1:], setup.samples[0]], strict=True):
        left, right = side_by_side(one.size, other.size)
        a, b = (one.target, left), (other.target, right)
        both = setup.placed(a, b)
        marks = [target.label_marks(label) for label in (both, setup.placed(a), setup.placed(b))]
        where = f"samples {one.index} and {other.index} side by side"
        same_marks(where, marks[0], marks[1:], [left.seen, right.seen])
        below, above = as_it_is(one.size), fitted(other.size, one.size)
        covered = setup.placed((one.target, below), (other.target, above))
        alone = target.label_marks(setup.placed((other.target, above)))
        where = f"sample {other.index} over all of sample {one.index}"
        same_marks(where, target.label_marks(covered), [alone], [above.seen])
        faint = setup.placed((one.target, below), (other.target, replace(above, share=0.4)))
        half = setup.placed(a, (target.unknown(), right))
        for batch in ([setup.placed(a), both, half], [covered, faint]):
            target.collate(batch)


def unknown_part(subject: Subject) -> None:
    """With `mixes`, of the part of an input that shows an unknown image its label says that nothing is known."""
    passes_first(several_in_one, subject)
    setup = make(subject)
    nothing = setup.target.unknown()
    for sample in setup.known:
        left, right = side_by_side(sample.size, sample.size)
        half = setup.placed((sample.target, left), (nothing, right))
        alone, unknown = setup.placed((sample.target, left)), setup.placed((nothing, right))
        rows, columns = right.seen_pixels
        # Maps of the input, such as masks, need not tell the unknown from padding, where nothing is known either.
        maps = [name for name, value in half.items() if tuple(value.shape[-2:]) == right.input_size]
        for name in maps:
            here, wanted = ({name: label[name][..., rows, columns]} for label in (half, unknown))
            where = f"sample {sample.index} beside an image of which nothing is known: {name!r}"
            expect(
                same(here, wanted), f"{where} says something of that image's part; expected what it says of it alone"
            )
        expect(
            maps or not same(half, alone),
            f"sample {sample.index} beside an image of which nothing is known has the label that it has beside nothing "
            "at all: expected one that leaves that image's part aside, or all of the input",
        )


def equal_views(subject: Subject) -> None:
    """Several views of an image on which the same is seen are restored to what one of them is."""
    passes_first(there_and_back, subject)
    setup = make(subject)
    target, found, wanted = setup.target, list[Prediction](), list[Prediction]()
    for sample in setup.known:
        views = [(setup.perfect_in(sample, placement), placement) for placement in whole(sample.size).values()]
        wanted.append(target.restored(views[:1]))
        found.append(target.restored(views))
    for sample, merged, alone in zip(setup.known, found, wanted, strict=True):
        # Of things that lie over each other one may have been taken for the other.
        if not isinstance(target, RatesPredictions) or _more(merged, alone):
            _expect_same(f"{len(views)} views of sample {sample.index}", merged, alone)
    if isinstance(target, RatesPredictions):
        several, one = (target.rightness(predictions, setup.known) for predictions in (found, wanted))
        right = several is None or one is None or several >= _PERFECT * one
        expect(right, f"{len(views)} views are right by {several}, one by {one}")


def each_view(subject: Subject) -> None:
    """What two views are restored to depends on what is said of the first and of the second."""
    passes_first(equal_views, subject)
    setup = make(subject)
    pairs = 0
    matters = [False, False]
    for one, other in zip(setup.known, [*setup.known[1:], *setup.known[:1]], strict=True):
        placement = as_it_is(one.size)
        # The other one's label, in an input of the same size, as if it were of this image.
        said = [(setup.perfect_in(sample, fitted(sample.size, one.size)), placement) for sample in (one, other)]
        restored = setup.target.restored
        if same_in_order(restored(said[:1]), restored(said[1:]), _TOLERANCE):
            continue
        pairs += 1
        both = restored(said)
        for view, alone in enumerate((restored([said[1]] * 2), restored([said[0]] * 2))):
            matters[view] |= not same_in_order(both, alone, _TOLERANCE)
    if not pairs:
        raise Skip("perfect predictions of all images of its data are the same")
    for view, name in enumerate(("first", "second")):
        expect(
            matters[view],
            f"two views that differ are restored to what the {'second' if view == 0 else 'first'} says, whatever the "
            f"{name} says: expected one prediction of both (`restored`), tried with {pairs} pairs of images",
        )


def plain_is_json(subject: Subject) -> None:
    """`plain` gives numbers, text, lists and dictionaries, which JSON has; it has no NaN."""
    setup = make(subject)
    for sample, perfect in zip(setup.samples, setup.perfect, strict=True):
        said = setup.target.plain(perfect)
        try:
            text = json.dumps(said, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise Violation(f"sample {sample.index}: {error} in {said!r}") from error
        back = json.loads(text)
        expect(back == said, f"sample {sample.index}: {said!r} comes back from JSON as {back!r}")


def marks(subject: Subject) -> None:
    """Marks are of `mtframe.marks` and lie in the picture, of labels and predictions, cropped and turned too."""
    passes_first(collates, subject)
    setup = make(subject)
    target = setup.target
    for sample, perfect in zip(setup.samples, setup.perfect, strict=True):
        of = f"sample {sample.index}"
        check_marks(f"the label of {of}", target.label_marks(sample.target), sample.size)
        check_marks(f"a prediction of {of}", target.marks(perfect), sample.size)
        for how, placement in {**whole(sample.size), **partial(sample.size)}.items():
            for label in (sample.target, target.unknown()):
                shown = target.label_marks(setup.placed((label, placement)))
                check_marks(f"the label of {of}, {how}", shown, placement.input_size, placement.seen)


def perfect(subject: Subject) -> None:
    """A perfect prediction is finite and of the right form, and is rated best where predictions are rated: about 1."""
    setup = make(subject)
    target, found = setup.target, setup.perfect
    for sample, said in zip(setup.samples, found, strict=True):
        check_prediction(f"the perfect prediction of sample {sample.index}", target, said, sample.size)
    if isinstance(target, RatesPredictions):
        best, other = (target.rightness(said, setup.samples) for said in (found, [*found[1:], found[0]]))
        rated = best is None or (best >= _PERFECT and (other is None or best >= other))
        expect(rated, f"perfect predictions are right by {best}, those of other images by {other}")


def form(subject: Subject) -> None:
    """`check_label` takes its data's labels and the unknown one, `check_prediction` perfect ones; neither nothing."""
    passes_first(perfect, subject)
    setup = make(subject)
    target = setup.target
    if not isinstance(target, ChecksForm):
        raise Skip("it does not check labels and predictions (ChecksForm)")
    for sample in setup.samples:
        check_label(f"sample {sample.index}", target, sample.target, sample.size)
    size = setup.samples[0].size
    check_label("unknown()", target, target.unknown(), size)
    for name, check in (("check_label", target.check_label), ("check_prediction", target.check_prediction)):
        try:
            check({}, size)
        except ValueError:
            continue
        expect(False, f"{name} raises no ValueError of an empty dictionary")


def files(subject: Subject) -> None:
    """`files`, where there is one, gives bytes by the end of a file's name, as `mask.png`."""
    setup = make(subject)
    if not isinstance(setup.target, WritesFiles):
        raise Skip("it writes no files (WritesFiles)")
    for said in setup.perfect:
        for name, content in setup.target.files(said).items():
            right = isinstance(name, str) and PurePath(name).suffix and PurePath(name).name == name
            expect(right, f"expected the end of a file's name, as 'mask.png', got {name!r}")
            expect(isinstance(content, bytes) and content, f"expected bytes of {name!r}, got {type(content).__name__}")


def embedding(subject: Subject) -> None:
    """`embedding`, where there is one, gives (D,) numbers of unit length."""
    setup = make(subject)
    if not isinstance(setup.target, Embeds):
        raise Skip("it gives no embeddings (Embeds)")
    for said in setup.perfect:
        found = setup.target.embedding(said)
        expect(found.ndim == 1, f"expected (D,), got {tuple(found.shape)}")
        length = float(found.float().norm())
        expect(abs(length - 1) < 1e-2, f"expected an embedding of unit length, got length {length:.3g}")


def surveyed(subject: Subject) -> None:
    """`condensed` and `survey`, where there are any, count what is on images, in any order, and know the unknown."""
    setup = make(subject)
    target, samples = setup.target, setup.samples
    if not isinstance(target, Surveys):
        raise Skip("it has no condensed, survey and findings, so nobody learns what its labels say")
    kept = [target.condensed(sample) for sample in samples]
    scales = np.linspace(0.5, 2, len(samples))
    said = target.survey(kept, scales)
    expect(isinstance(said, Survey), f"expected a mtframe.kinds.Survey, got {said!r}")
    total, images = sum(said.classes.values()), said.empty + said.unknown
    expect(not said.classes or said.total == total, f"its total is {said.total}, and its classes add up to {total}")
    expect(images <= len(samples), f"{said.empty} images are empty and {said.unknown} unknown, of {len(samples)}")
    expect(said.total > 0, f"it counts nothing on {len(setup.known)} images of which something is known")
    check_findings("survey", target.findings, said.findings)
    back = target.survey(kept[::-1], scales[::-1])
    same_numbers = (back.total, back.empty, back.unknown, dict(back.classes), dict(back.rows)) == (
        said.total, said.empty, said.unknown, dict(said.classes), dict(said.rows)
    )  # fmt: skip
    expect(same_numbers, "it says something else of the same labels backwards")
    # Where nobody knows the size, as in a data set without a task.
    target.survey(kept, np.full(len(samples), np.nan))
    nothing = target.survey([target.condensed(replace(samples[0], target=target.unknown()))], np.ones(1))
    right = (nothing.total, nothing.unknown) == (0, 1)
    expect(right, f"of one unknown label it counts {nothing.total} {nothing.things} and {nothing.unknown} unknown")


def picklable(subject: Subject) -> None:
    """It can be pickled, as loader processes need on most systems, and the copy collates the same."""
    setup = make(subject)
    other: Target = pickle.loads(pickle.dumps(setup.target))  # noqa: S301 - what was pickled a moment ago
    labels = setup.labels
    expect(same(other.collate(labels), setup.target.collate(labels)), "the copy collates labels to something else")


def _more(found: Prediction, wanted: Prediction) -> bool:
    """Whether one prediction has other names than another, or more of anything."""
    sizes = [{name: value.numel() for name, value in prediction.items()} for prediction in (found, wanted)]
    return set(found) != set(wanted) or any(sizes[0][name] > sizes[1][name] for name in wanted)


def _expect_same(of: str, found: Prediction, wanted: Prediction) -> None:
    expect(set(found) == set(wanted), f"{of}: {_names(found)} come back, of {_names(wanted)}")
    if same(found, wanted, _TOLERANCE):
        return
    for name, value in wanted.items():
        shapes = tuple(found[name].shape), tuple(value.shape)
        expect(shapes[0] == shapes[1], f"{of}: {name!r} comes back with shape {shapes[0]}, expected {shapes[1]}")
        alike = same({name: found[name]}, {name: value}, _TOLERANCE)
        expect(alike, f"{of}: {name!r} comes back as {_short(found[name])}, expected {_short(value)}")
    expect(False, f"{of}: {_names(found)} come back in orders that do not go together")


def _short(value: Tensor) -> str:
    return str(value.tolist()) if value.numel() <= 16 else f"{value.flatten()[:8].tolist()} and more"


def _names(prediction: Prediction) -> str:
    return ", ".join(map(repr, prediction)) or "nothing"


CHECKS = checks(
    unknown,
    collates,
    there_and_back,
    mirrored_twice,
    follows_its_image,
    min_visible,
    several_in_one,
    unknown_part,
    equal_views,
    each_view,
    plain_is_json,
    marks,
    perfect,
    form,
    files,
    embedding,
    surveyed,
    picklable,
)
