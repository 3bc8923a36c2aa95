from __future__ import annotations

import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mtframe import options
from mtframe.data import ClassCounts
from mtframe.errors import DataError, MtframeError, RecipeError
from mtframe_classification.csv_images import CsvImages

WriteCsv = Callable[[str], Path]
WriteImage = Callable[..., None]

# A class or a number does not depend on the picture's.
SIZE = (10, 12)

PETS = """\
file,split,animal,tame,old,weight
a.jpg,train,dog,1,,12.5
b.jpg,train,cat,0,1,
sub/c.jpg,train,,,,-3e1
d.jpg,val,cat,1,0,4
e.jpg,val,,,,
"""


def _targets(data: CsvImages) -> dict[str, Any]:
    """By path; without reading images."""
    return {id: data.target_of(id, SIZE)[data.info.target] for id in data.ids()}


def test_classes_are_counted_among_what_is_known_of_the_training_images(write_csv: WriteCsv) -> None:
    root = write_csv(PETS)
    assert CsvImages("train", root=root, label="animal").info.counts == ClassCounts((1, 1), (1, 1))
    # Of `old`, one image is unknown.
    assert CsvImages("train", root=root, labels=("tame", "old")).info.counts == ClassCounts((1, 1), (1, 0))
    assert CsvImages("val", root=root, label="animal").info.counts is None
    assert CsvImages("train", root=root, values=("weight",)).info.counts is None


def test_one_label(write_csv: WriteCsv) -> None:
    root = write_csv(PETS)
    train, val = (CsvImages(split, root=root, label="animal") for split in ("train", "val"))
    assert (train.info.target, train.info.classes) == ("label", ("cat", "dog"))
    assert train.info == val.info
    assert _targets(train) == {"a.jpg": 1, "b.jpg": 0}
    assert _targets(val) == {"d.jpg": 0}
    assert (train.notes, train.omitted) == ((), {"rows without a label": 1})
    assert train.target_of("sub/c.jpg", SIZE)["label"].tolist() == -1
    assert train.target_of("d.jpg", SIZE)["label"].tolist() == -1, "a validation label is not for training"
    assert train.target_of("a.jpg", SIZE)["label"].dtype == torch.int64


def test_columns_of_labels(write_csv: WriteCsv) -> None:
    data = CsvImages("train", root=write_csv(PETS), labels=("tame", "old"))
    assert (data.info.target, data.info.classes) == ("labels", ("tame", "old"))
    found = _targets(data)
    assert list(found) == ["a.jpg", "b.jpg"]
    np.testing.assert_array_equal(found["a.jpg"], [1, np.nan])
    np.testing.assert_array_equal(found["b.jpg"], [0, 1])
    assert found["a.jpg"].dtype == torch.float32
    assert data.target_of("nothing.jpg", SIZE)["labels"].isnan().tolist() == [True, True]


def test_one_column_of_names(write_csv: WriteCsv) -> None:
    root = write_csv("image,tags\n./x/a.jpg,red; round\nb.jpg,;\nc.jpg,\nd.jpg,round\n")
    data = CsvImages("train", root=root, labels="tags", val_part=0.0)
    assert data.info.classes == ("red", "round")
    assert {id: value.tolist() for id, value in _targets(data).items()} == {
        "x/a.jpg": [1, 1], "b.jpg": [0, 0], "d.jpg": [0, 1],
    }  # fmt: skip
    chosen = CsvImages("train", root=root, labels="tags", val_part=0.0, classes=("round", "red", "blue"))
    assert chosen.target_of("d.jpg", SIZE)["labels"].tolist() == [1, 0, 0]
    with pytest.raises(DataError, match=r"line 2, column 'tags': expected one of .* \(did you mean 'round'\?\), got"):
        CsvImages("train", root=write_csv("image,tags\na.jpg,rund\n"), labels="tags", classes=("round",))


def test_numbers(write_csv: WriteCsv) -> None:
    data = CsvImages("train", root=write_csv(PETS), values=("weight",))
    assert (data.info.target, data.info.classes) == ("value", ("weight",))
    assert {id: value.tolist() for id, value in _targets(data).items()} == {"a.jpg": [12.5], "sub/c.jpg": [-30]}
    assert data.target_of("b.jpg", SIZE)["value"].isnan().all()


def test_images_are_read_and_it_survives_pickling(write_csv: WriteCsv, write_image: WriteImage) -> None:
    root = write_csv(PETS)
    for name in ("a.jpg", "b.jpg"):
        write_image(root / name)
    data = pickle.loads(pickle.dumps(CsvImages("train", root=root, label="animal")))  # noqa: S301
    sample = data[0]
    assert (sample.id, sample.index, int(sample.target["label"])) == ("a.jpg", 0, 1)
    assert tuple(sample.image.shape) == (3, 10, 12)


def test_a_part_validates_where_the_file_does_not_say(write_csv: WriteCsv) -> None:
    rows = [f"{number}.jpg,{'cat' if number % 2 else 'dog'}" for number in range(40)]
    root = write_csv("\n".join(["file,animal", *rows]))
    train, val = (_targets(CsvImages(split, root=root, label="animal")) for split in ("train", "val"))
    assert not train.keys() & val.keys()
    assert (len(train), len(val)) == (32, 8)
    assert sum(int(label) for label in val.values()) == 4, "as many of each class"
    with pytest.raises(RecipeError, match=r"split: no row of .*labels\.csv is in 'test'"):
        CsvImages("test", root=root, label="animal")
    # Test rows stay out of it.
    tests = [f"{row},{'test' if number < 20 else 'train'}" for number, row in enumerate(rows)]
    root = write_csv("\n".join(["file,animal,split", *tests]))
    lengths = [len(CsvImages(split, root=root, label="animal")) for split in ("train", "val", "test")]
    assert lengths == [16, 4, 20]


def test_a_table_as_a_spreadsheet_writes_it(tmp_path: Path) -> None:
    text = '﻿"file", "animal" \r\n"a, b.jpg", dog \r\n\r\n"c ""d"".jpg",cat\r\n'
    (tmp_path / "labels.csv").write_text(text.replace(', "animal"', ",animal"), encoding="utf-8", newline="")
    data = CsvImages("train", root=tmp_path, label="animal", val_part=0.0)
    assert _targets(data) == {"a, b.jpg": 1, 'c "d".jpg': 0}


def _refused(root: Path, error: type[MtframeError], message: str, **given: Any) -> None:
    with pytest.raises(error, match=message):
        CsvImages("train", root=root, **{"bad_labels": 0.0, **(given or {"label": "animal"})})


@pytest.mark.parametrize(
    ("change", "given", "message"),
    [
        (lambda t: t.replace("a.jpg,train,dog,1", "a.jpg,train,dog,yes"), {"labels": ("tame",)},
         "line 2, column 'tame': expected 0, 1 or nothing, got 'yes'$"),
        (lambda t: t.replace("-3e1", "12 kg"), {"values": ("weight",)},
         "line 4, column 'weight': expected a number or nothing, got '12 kg'"),
        (lambda t: t.replace("-3e1", "nan"), {"values": ("weight",)}, "column 'weight': .*, got 'nan'"),
        (lambda t: t.replace("-3e1", "1e99"), {"values": ("weight",)}, "column 'weight': .*, got '1e99'"),
        (lambda t: t.replace("-3e1", "1_000"), {"values": ("weight",)}, "column 'weight': .*, got '1_000'"),
        (lambda t: t.replace("d.jpg,val,cat", "d.jpg,val,cta"), {"label": "animal"},
         "line 5, column 'animal': expected one of the 2 classes of the training rows or of 'classes' "
         "(did you mean 'cat'?), got 'cta'"),
        (lambda t: t.replace("b.jpg,train", "b.jpg,trian"), {"label": "animal"},
         "line 3, column 'split': expected train, val or test, got 'trian'"),
        (lambda t: t.replace("b.jpg,train,cat,0,1,", "b.jpg,train,cat"), {"label": "animal"},
         "line 3: expected 6 cells as in the first line, got 3"),
        (lambda t: t.replace("sub/c.jpg", "./a.jpg"), {"label": "animal"},
         "line 4, column 'file': 'a.jpg' stands in line 2 too"),
        (lambda t: t.replace("sub/c.jpg", "../c.jpg"), {"label": "animal"},
         "line 4, column 'file': expected a path that stays in the root, without '..', got '../c.jpg'"),
        (lambda t: t.replace("sub/c.jpg", "/etc/c.jpg"), {"label": "animal"}, "got '/etc/c.jpg'"),
        (lambda t: t.replace("sub/c.jpg", r"C:\c.jpg"), {"label": "animal"}, r"got 'C:\\\\c.jpg'"),
        (lambda t: t.replace("sub/c.jpg", ""), {"label": "animal"}, "stays in the root, without '..', got ''"),
        (lambda t: t.replace("old", "tame"), {"label": "animal"}, "column 'tame' stands twice"),
        (lambda t: t.replace("-3e1", '"3'), {"label": "animal"}, "not a csv file (unexpected end of data)"),
        (lambda t: "file,animal\n", {"label": "animal"}, "a row for each image, found 1 lines"),
        (lambda t: "", {"label": "animal"}, "a row for each image, found 0 lines"),
        (lambda t: t.replace("dog", "cat"), {"label": "animal"},
         "column 'animal': the training rows name 1 classes; expected 2 or more"),
        (lambda t: "file,tame\na.jpg,\nb.jpg,\n", {"labels": ("tame",)}, "not one row of split 'train' has a label"),
    ],
)  # fmt: skip
def test_wrong_cells_are_named(
    write_csv: WriteCsv, change: Callable[[str], str], given: dict[str, Any], message: str
) -> None:
    # Patterns are plain text but for their ends and gaps.
    pattern = re.escape(message).replace(r"\$", "$").replace(r"\.\*", ".*").replace(r"\\\\", r"\\")
    _refused(write_csv(change(PETS)), DataError, pattern, **given)


def table_of(rows: int, **changed: str) -> str:
    """Rows of a file, a split and a class, by turns; some are replaced, by their number in letters."""
    names = "abcdefghijklmnopqrstuvwxyz"
    lines = [f"{name}.jpg,{'val' if n % 4 == 3 else 'train'},{'cat' if n % 2 else 'dog'}"
             for n, name in enumerate(names[:rows])]  # fmt: skip
    return "\n".join(["file,split,animal", *(changed.get(line[0], line) for line in lines)]) + "\n"


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ("b.jpg,train", "line 3: expected 3 cells as in the first line, got 2"),
        ("b.jpg,trian,cat", "line 3, column 'split': expected train, val or test, got 'trian'"),
        ("../b.jpg,train,cat", "expected a path that stays in the root"),
        ('b.jpg,train,"cat" and', "line 3: not a csv file"),
        ("b\0.jpg,train,cat", "line 3"),
    ],
)
def test_one_wrong_row_costs_its_row(write_csv: WriteCsv, wrong: str, why: str) -> None:
    root = write_csv(table_of(8, b=wrong))
    train, val = (CsvImages(split, root=root, label="animal") for split in ("train", "val"))
    assert train.ids() == ["a.jpg", "c.jpg", "e.jpg", "f.jpg", "g.jpg"]
    assert val.ids() == ["d.jpg", "h.jpg"]
    assert (train.omitted, val.omitted, val.notes) == ({"rows that are wrong": 1}, {}, ())
    assert "1 of 8 rows are left out, since they are wrong" in train.notes[0]
    assert why in train.notes[0]
    _refused(root, DataError, "1 of 8 rows would have to be left out")


def test_a_wrong_row_is_counted_in_its_split(write_csv: WriteCsv) -> None:
    root = write_csv(table_of(8, d="d.jpg,val,caat"))
    train, val = (CsvImages(split, root=root, label="animal") for split in ("train", "val"))
    assert (train.omitted, val.omitted, val.ids()) == ({}, {"rows that are wrong": 1}, ["h.jpg"])
    assert "(did you mean 'cat'?), got 'caat'" in val.notes[0]
    with pytest.raises(
        DataError, match="2 of 8 rows would have to be left out, since they are wrong; at most 1 may be"
    ):
        CsvImages("train", root=write_csv(table_of(8, d="d.jpg,val,caat", a="a.jpg")), label="animal")


def test_an_open_quote_takes_more_than_one_row(write_csv: WriteCsv) -> None:
    with pytest.raises(DataError, match=r"7 of 8 rows .*\n  line 9: not a csv file \(unexpected end of data\)"):
        CsvImages("train", root=write_csv(table_of(8, b='b.jpg,train,"cat')), label="animal")


def test_rows_that_stand_twice(write_csv: WriteCsv) -> None:
    root = write_csv(table_of(8, b="a.jpg,train,dog"))
    train = CsvImages("train", root=root, label="animal")
    assert (train.ids()[0], len(train), train.omitted) == ("a.jpg", 5, {"rows that stand twice": 1})
    # Nobody knows which is right.
    both = write_csv(table_of(26, b="a.jpg,val,cat") + "".join(f"{n}.jpg,train,dog\n" for n in range(20)))
    train = CsvImages("train", root=both, label="animal")
    assert "a.jpg" not in train.ids() + CsvImages("val", root=both, label="animal").ids()
    assert train.omitted == {"rows that are wrong": 1}


def test_the_first_few_of_many_are_named(write_csv: WriteCsv) -> None:
    rows = "\n".join(f"{number}.jpg,{number}" for number in range(9))
    with pytest.raises(DataError, match=r"got '2'\n  line 5.*got '3'\n  line 6.*got '4'\n  \.\.\. and 4 more$"):
        CsvImages("train", root=write_csv(f"file,tame\n{rows}"), labels=("tame",))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"label": "aminal"}, "label: .* has no column 'aminal'; it has file, .*; did you mean 'animal'"),
        ({"label": "animal", "image": "path"}, "image: .* has no column 'path'; it has file"),
        ({"label": "animal", "file": "label.csv"}, r"file: cannot read '.*label\.csv' \(No such file or directory\)"),
        ({}, "expected one of label=COLUMN, .*, got none of them"),
        ({"label": "animal", "values": ("weight",)}, "expected one of .*, got label and values"),
        ({"values": ()}, r"values: expected columns, each once, got \[\]"),
        ({"labels": ("tame", "tame")}, r"labels: expected columns, each once, got \['tame', 'tame'\]"),
        ({"labels": ("tame",), "classes": ("tame",)}, "classes: labels are named by their columns"),
        ({"labels": "animal", "separator": " "}, "separator: expected a character that is no space, got ' '"),
    ],
)
def test_wrong_options_are_named(write_csv: WriteCsv, given: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        CsvImages("train", root=write_csv(PETS), **given)


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_bytes(b"file,animal\n\xff\xfe.jpg,dog\n")
    _refused(tmp_path, DataError, "labels.csv: not a text file in UTF-8")
    with pytest.raises(RecipeError, match=r"root: no folder '.*gone'\. Make one with: mtframe data synthesize csv"):
        CsvImages("train", root=tmp_path / "gone", label="animal")


def test_a_recipe_may_write_a_column_or_a_list_of_them(write_csv: WriteCsv) -> None:
    root = str(write_csv(PETS))
    built = options.build(CsvImages, "dataset", {"root": root, "labels": ["tame", "old"]}, {"split": "train"}, "d")
    assert built.info.classes == ("tame", "old")
    built = options.build(CsvImages, "dataset", {"root": root, "labels": "animal"}, {"split": "train"}, "d")
    assert built.info.classes == ("cat", "dog")
    with pytest.raises(RecipeError, match=r"^d\.label: .* has no column 'x'"):
        options.build(CsvImages, "dataset", {"root": root, "label": "x"}, {"split": "train"}, "d")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150)
@given(st.one_of(st.binary(max_size=60), st.text('file,ab"\n\r\0;é01', max_size=60).map(str.encode)))
def test_whatever_is_in_the_file_is_read_or_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "labels.csv").write_bytes(b"file,a\n" + content)
    for chosen in ({"label": "a"}, {"labels": "a"}, {"labels": ("a",)}, {"values": ("a",)}):
        try:
            length, said = len(CsvImages("train", root=tmp_path, val_part=0.0, **chosen)), ""  # type: ignore[arg-type]
        except MtframeError as error:
            length, said = 0, str(error)
        assert length > 0 or "labels.csv" in said


def test_paths_of_real_lfw_join_with_its_images(shared_data: Path, tmp_path: Path) -> None:
    from mtframe_face.lfw import LFW

    root = shared_data / "lfw"
    faces = LFW("train", root=root)
    file = tmp_path / "attributes.csv"
    ids = [faces[index].id for index in range(0, len(faces), len(faces) // 4)]
    file.write_text(
        "\n".join(["file,glasses", *(f"{id},{number % 2}" for number, id in enumerate(ids))]), encoding="utf-8"
    )
    data = CsvImages("train", root=root, file=str(file), labels=("glasses",), val_part=0.0)
    assert [data.target_of(id, SIZE)["labels"].item() for id in ids] == [number % 2 for number in range(len(ids))]
    assert data[0].image.shape == (3, 250, 250)
    assert data.target_of(faces[1].id, SIZE)["labels"].isnan().all()


@pytest.mark.timeout(20)
def test_a_header_of_many_columns_is_read_in_time(write_csv: WriteCsv) -> None:
    columns = ",".join(f"c{number}" for number in range(40_000))
    with pytest.raises(DataError, match="line 2: expected 40002 cells as in the first line, got 2"):
        CsvImages("train", root=write_csv(f"file,label,{columns}\na.jpg,x\n"), label="label")


@pytest.mark.parametrize("given", [{"label": "names"}, {"labels": "names"}])
def test_suggestions_are_made_only_for_the_cells_that_are_named(
    write_csv: WriteCsv, given: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    monkeypatch.setattr("mtframe_classification.csv_images.did_you_mean", lambda name, _: asked.append(name) or "")
    rows = "".join(f"{n}.jpg,train,name{n}\nv{n}.jpg,val,nam{n}x\n" for n in range(50))
    with pytest.raises(DataError, match="and 47 more"):
        CsvImages("train", root=write_csv(f"file,split,names\n{rows}"), **given)
    assert asked == ["nam0x", "nam1x", "nam2x"]


def test_names_that_would_take_gigabytes_are_refused(write_csv: WriteCsv) -> None:
    rows = "".join(f"{number}.jpg,n{number}\n" for number in range(20_000))
    root = write_csv(f"file,labels\n{rows}")
    message = r"labels\.csv: 20,000 rows and 20,000 classes would take 1,600,000,000 bytes, more than the limit of"
    with pytest.raises(DataError, match=message):
        CsvImages("train", root=root, labels="labels")


def test_one_long_path_does_not_widen_all_others(write_csv: WriteCsv) -> None:
    rows = "".join(f"{number}.jpg,{'ab'[number % 2]}\n" for number in range(2000))
    data = CsvImages("train", root=write_csv(f"file,label\n{'x' * 20_000}.jpg,a\n{rows}"), label="label", val_part=0.0)
    assert len(data) == 2001
    # At the width of the longest it would be 40 MB.
    assert len(pickle.dumps(data)) < 1_000_000
