from __future__ import annotations

import contextlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtframe.errors import DataError
from mtframe_face.pairs import NamedPair, read_pairs, read_people


def _write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "pairs.txt"
    path.write_text(text, encoding="utf-8")
    return path


def test_view_2_folds_are_the_files_sets(tmp_path: Path) -> None:
    path = _write(tmp_path, "2\t1\nA\t1\t2\nA\t1\tB\t7\nC\t3\t4\nC\t1\tD\t12\n")
    assert read_pairs(path) == [
        NamedPair(("A", 1), ("A", 2), 0),
        NamedPair(("A", 1), ("B", 7), 0),
        NamedPair(("C", 3), ("C", 4), 1),
        NamedPair(("C", 1), ("D", 12), 1),
    ]
    assert [pair.same for pair in read_pairs(path)] == [True, False, True, False]


def test_view_1_is_cut_into_ten_folds_of_matched_and_mismatched_pairs(tmp_path: Path) -> None:
    matched = [f"A\t{n}\t{n + 1}" for n in range(1, 21)]
    mismatched = [f"A\t{n}\tB\t1" for n in range(1, 21)]
    pairs = read_pairs(_write(tmp_path, "\n".join(["20", *matched, *mismatched])))
    folds = np.array([pair.fold for pair in pairs])
    assert folds.tolist() == [n // 2 for n in range(20)] * 2


def test_names_may_have_spaces_where_tabs_divide_the_fields(tmp_path: Path) -> None:
    path = _write(tmp_path, "1\nAnn Lee\t1\t2\nAnn Lee\t1\tBob\t7\n")
    assert read_pairs(path)[1] == NamedPair(("Ann Lee", 1), ("Bob", 7), 0)
    assert read_people(_write(tmp_path, "1\nAnn Lee\t3\n")) == {"Ann Lee": 3}


def test_a_byte_order_mark_is_no_part_of_the_first_line(tmp_path: Path) -> None:
    assert len(read_pairs(_write(tmp_path, "\ufeff1\nA 1 2\nA 1 B 1\n"))) == 2
    assert read_people(_write(tmp_path, "\ufeff1\nA\t3\n")) == {"A": 3}


def test_blank_lines_and_spaces_between_fields_do_not_matter(tmp_path: Path) -> None:
    assert len(read_pairs(_write(tmp_path, "1\n\nA 1  2\n\nA 1 B 1\n\n"))) == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"pairs.txt:1: expected 'N' or 'folds N'"),
        ("1 2 3\n", r"pairs.txt:1: expected 'N' or 'folds N' on the first line, found '1 2 3'"),
        ("many\n", r"pairs.txt:1: expected a count of pairs \(1 or more\), found 'many'"),
        ("1\nA\t1\t2\n", "promises 1 x 1 matched and as many mismatched pairs, 2 lines; found 1"),
        ("1\nA\t1\tB\t2\nA\t1\tB\t2\n", "pairs.txt:2: expected a matched pair 'name n1 n2', found 'A 1 B 2'"),
        (
            "1\nA\t1\t2\nB\t1\t2\n",
            "pairs.txt:3: expected a mismatched pair 'name1 n1 name2 n2', found 'B 1 2'",
        ),
        ("1\nA\t1\tx\nA\t1\tB\t2\n", r"pairs.txt:2: expected an image's number \(1 or more\), found 'x'"),
        ("1\nA\t0\t2\nA\t1\tB\t2\n", r"pairs.txt:2: expected an image's number \(1 or more\), found '0'"),
        ("1\nA\t1\t2\n\nA\t1\tA\t2\n", "pairs.txt:4: a mismatched pair names A twice"),
        ("1\nA\t2\t2\nA\t1\tB\t2\n", "pairs.txt:2: an image is paired with itself"),
        ("1\n../A\t1\t2\nA\t1\tB\t2\n", "pairs.txt:2: '../A' is a path, not a person's name"),
        ("1\nA\t1\t2\nA\t1\t/etc/B\t2\n", "pairs.txt:3: '/etc/B' is a path, not a person's name"),
        ("1\nA\t1\t2\nA\t1\t..\t2\n", "pairs.txt:3: '..' is a path, not a person's name"),
    ],
)
def test_malformed_pairs_are_refused_with_their_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_pairs(_write(tmp_path, text))


def test_a_binary_pairs_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "pairs.txt"
    path.write_bytes(b"\xff\xd8\xff\xe0")
    with pytest.raises(DataError, match="cannot be read as text"):
        read_pairs(path)


def test_people_of_one_set_and_of_several(tmp_path: Path) -> None:
    assert read_people(_write(tmp_path, "2\nA\t3\nB\t1\n")) == {"A": 3, "B": 1}
    assert read_people(_write(tmp_path, "2\n1\nA\t3\n2\nB\t1\nC\t2\n")) == {"A": 3, "B": 1, "C": 2}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("A\t3\n", "pairs.txt:1: expected the number of people"),
        ("3\nA\t3\nB\t1\n", "pairs.txt:1: 3 people should follow, found 2"),
        ("1\nA\t3\nB\t1\n", "pairs.txt:3: expected a number of people, found 'B 1'"),
        ("2\nA\t3\nB\tx\n", r"pairs.txt:3: expected a number of images \(1 or more\), found 'x'"),
        ("2\nA\t3\nA\t1\n", "pairs.txt:3: A is listed twice"),
        ("1\n../../home\t3\n", "pairs.txt:2: '../../home' is a path"),
    ],
)
def test_malformed_people_are_refused_with_their_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_people(_write(tmp_path, text))


@given(st.text(max_size=60))
def test_any_text_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.mktemp("text") / "file.txt"
    path.write_text(text, encoding="utf-8", errors="ignore")
    for read in (read_pairs, read_people):
        with contextlib.suppress(DataError):
            read(path)
