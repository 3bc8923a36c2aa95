"""Files of the same bytes in two splits, whatever they are called."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtframe.data import _contents, same_contents


def _write(folder: Path, *contents: bytes) -> list[Path]:
    folder.mkdir(parents=True)
    files = [folder / f"{number}.jpg" for number in range(len(contents))]
    for file, content in zip(files, contents, strict=True):
        file.write_bytes(content)
    return files


def test_contents_are_compared_and_not_names(tmp_path):
    train = _write(tmp_path / "train", b"one", b"two", b"six", b"three")
    val = _write(tmp_path / "val", b"one", b"three", b"ten", b"one")
    test = _write(tmp_path / "test", b"four", b"three")
    assert same_contents({"train": train, "val": val, "test": test}) == [
        {"train": [0], "val": [0, 3]},
        {"train": [3], "val": [1], "test": [1]},
    ]


def test_what_one_split_has_twice_is_not_in_two_splits(tmp_path):
    train, val = _write(tmp_path / "train", b"one", b"one"), _write(tmp_path / "val", b"two")
    assert same_contents({"train": train, "val": val}) == []


@pytest.mark.parametrize("place", [0, 5_000, 9_999, 15_000, 19_999])
def test_one_byte_makes_another_file(tmp_path, place):
    content = bytearray(b"a" * 20_000)
    ours = bytes(content)
    content[place] += 1
    train, val = _write(tmp_path / "train", ours), _write(tmp_path / "val", bytes(content), ours)
    assert same_contents({"train": train, "val": val}) == [{"train": [0], "val": [1]}]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.lists(st.sampled_from([b"a", b"b", b"aa", b"ab", b"c" * 9000]), max_size=6), min_size=2, max_size=3))
def test_groups_are_those_of_comparing_everything_with_everything(tmp_path_factory, splits):
    root = tmp_path_factory.mktemp("splits")
    paths = {name: _write(root / str(name), *contents) for name, contents in enumerate(splits)}
    wanted: dict[bytes, dict[int, list[int]]] = {}
    for name, contents in enumerate(splits):
        for place, content in enumerate(contents):
            wanted.setdefault(content, {}).setdefault(name, []).append(place)
    assert same_contents(paths) == [group for group in wanted.values() if len(group) > 1]


def test_links_are_the_file_they_lead_to_and_are_not_read(tmp_path, monkeypatch):
    train = _write(tmp_path / "train", b"one", b"two")
    (tmp_path / "val").symlink_to(tmp_path / "train")
    hard = tmp_path / "hard.jpg"
    os.link(train[1], hard)
    monkeypatch.setattr(_contents, "_peeks", None)
    found = same_contents({"train": train[1:], "val": [tmp_path / "val" / "1.jpg", hard]})
    assert found == [{"train": [0], "val": [0, 1]}]


def test_what_cannot_be_compared_is_like_no_other(tmp_path):
    train = _write(tmp_path / "train", b"", b"one")
    val = _write(tmp_path / "val", b"", b"one")
    os.mkfifo(tmp_path / "pipe")
    odd = [tmp_path / "pipe", tmp_path / "absent.jpg", tmp_path, "a\0b"]
    assert same_contents({"train": [*train, *odd], "val": [*val, *odd]}) == [{"train": [1], "val": [1]}]


def test_of_a_large_copy_no_more_is_read_than_the_limit(tmp_path, monkeypatch):
    contents = [bytes([number]) * 9000 for number in range(6)]
    train, val = _write(tmp_path / "train", *contents), _write(tmp_path / "val", *contents)
    read = []
    whole = _contents._whole
    monkeypatch.setattr(_contents, "_whole", lambda file: read.append(file.size) or whole(file))
    monkeypatch.setattr(_contents, "_MOST", 40_000)
    assert same_contents({"train": train, "val": val}) == [{"train": [n], "val": [n]} for n in range(6)]
    assert sum(read) == 36_000
