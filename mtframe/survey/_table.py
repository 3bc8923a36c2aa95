"""A survey as a table of text: a column for each split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mtframe.errors import one_line

from ._survey import TaskSurvey

_Row = tuple[str, Sequence[int | None]]


def table_of(survey: TaskSurvey, *, classes: int = 100) -> str:
    """The table: images, things by class, regions to ignore, what was left out.

    Args:
        survey: Of a task.
        classes: Classes that are listed, the most frequent of the training data first; the others in one line.
    """
    rows = [row for row in _rows(survey, classes) if any(value is not None for value in row[1])]
    header = [f"{survey.name}: {survey.title}", *survey.splits]
    lines = [header, *([name, *("-" if value is None else str(value) for value in values)] for name, values in rows)]
    lines = [[one_line(cell) for cell in line] for line in lines]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    return "\n".join(
        "  ".join([cell.rjust(width) if place else cell.ljust(width)
                   for place, (cell, width) in enumerate(zip(line, widths, strict=True))])
        for line in lines
    )  # fmt: skip


def lines_of(survey: TaskSurvey, *, notes: bool = True) -> list[str]:
    """What was found, a line each, errors first."""
    return [f"{one.finding.severity}: {one.line()}" for one in survey.found if notes or one.finding.severity != "note"]


def _rows(survey: TaskSurvey, classes: int) -> list[_Row]:
    splits = list(survey.splits.values())
    surveys = [split.survey for split in splits]
    looks = [split.look for split in splits]
    rows: list[_Row] = [
        ("images", [look.images for look in looks]),
        ("  looked at", [look.looked_at if look.read and look.looked_at < look.images else None for look in looks]),
        ("  that cannot be read", [len(look.unreadable) if look.read else None for look in looks]),
        *(
            (name, numbers)
            for name, numbers in {
                "  that are not there": [len(look.missing) if look.read else None for look in looks],
                "  whose labels are wrong": [len(look.wrong) if look.read else None for look in looks],
            }.items()
            if any(numbers)
        ),
        ("  with nothing on them", [None if one is None else one.empty for one in surveys]),
        ("  of which nothing is known", [(None if one is None else one.unknown) or None for one in surveys]),
        (
            next((one.things for one in surveys if one is not None), ""),
            [None if one is None else one.total for one in surveys],
        ),
        *_class_rows([dict(one.classes) if one else None for one in surveys], classes),
    ]
    if measured := next((one.measured for one in surveys if one is not None and one.amounts), ""):
        rows.append((measured, [None if one is None else sum(one.amounts.values()) for one in surveys]))
        rows += _class_rows([dict(one.amounts) if one else None for one in surveys], classes)
    for name in dict.fromkeys(name for one in surveys if one is not None for name in one.rows):
        counts = [None if one is None else one.rows.get(name) for one in surveys]
        if any(counts):
            rows.append((name, counts))
    lost = [None if split.unlearnable is None else split.unlearnable[0] for split in splits]
    rows.append(("learned by no output of the head", lost))
    for reason in dict.fromkeys(reason for split in splits for reason, number in split.omitted.items() if number):
        rows.append((f"left out: {reason}", [split.omitted.get(reason, 0) for split in splits]))
    return rows


def _class_rows(counts: Sequence[Mapping[str, int] | None], most: int) -> list[_Row]:
    names = list(dict.fromkeys(name for count in counts if count for name in count))
    if len(names) > most:
        first = next(count for count in counts if count)
        names.sort(key=lambda name: -first.get(name, 0))
    shown, others = names[:most], names[most:]
    rows: list[_Row] = [
        (f"  {name}", [None if count is None else count.get(name, 0) for count in counts]) for name in shown
    ]
    if others:
        sums = [None if count is None else sum(count.get(name, 0) for name in others) for count in counts]
        rows.append((f"  {len(others)} other classes", sums))
    return rows
