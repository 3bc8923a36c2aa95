"""Indexed RecordIO, and the training data in it."""

from __future__ import annotations

import contextlib
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtframe.errors import BadImageError, DataError, RecipeError
from mtframe_face.insightface import InsightFace
from mtframe_face.recordio import MappedFile, Records
from record_files import MAGIC, jpeg, labelled, record, write_records, write_training


@settings(max_examples=60, deadline=None)
@given(
    st.dictionaries(
        st.integers(0, 10**6),
        st.lists(st.one_of(st.binary(max_size=9), st.just(MAGIC)), max_size=6).map(b"".join),
        min_size=1,
        max_size=6,
    )
)
def test_every_record_comes_back_as_it_was_written(
    tmp_path_factory: pytest.TempPathFactory, data: dict[int, bytes]
) -> None:
    path = tmp_path_factory.mktemp("records") / "x.rec"
    write_records(path, data)
    records = Records(path)
    assert records.keys.tolist() == sorted(data)
    assert {key: records[key] for key in data} == data


def test_a_record_with_the_magic_number_in_it_is_written_in_parts_and_read_as_one() -> None:
    data = b"1234" + MAGIC + b"56" + MAGIC
    # Only at a multiple of four is it taken for a beginning; the second stands at byte 10.
    written = record(data)
    assert written == b"".join((
        MAGIC, struct.pack("<I", 1 << 29 | 4), b"1234",
        MAGIC, struct.pack("<I", 3 << 29 | 6), b"56" + MAGIC, b"\0\0",
    ))  # fmt: skip


@pytest.mark.parametrize("with_ranges", [True, False])
def test_training_data_is_the_images_and_their_labels(tmp_path: Path, with_ranges: bool) -> None:
    write_training(tmp_path, [2, 3, 1], with_ranges)
    train = InsightFace("train", root=tmp_path)
    assert train.info.target == "identity"
    assert train.info.classes == ("0", "1", "2")
    assert [int(train[i].target["label"]) for i in range(len(train))] == [0, 0, 1, 1, 1, 2]
    assert train._labels.tolist() == [0, 0, 1, 1, 1, 2]
    sample = train[4]
    assert (sample.id, sample.size, sample.index) == ("train.rec/5", (24, 24), 4)
    path = tmp_path / "5.jpg"
    path.write_bytes(jpeg(5))
    from mtframe.data import read_image

    assert sample.image.equal(read_image(path)[0])
    with pytest.raises(IndexError):
        train[6]
    copy = pickle.loads(pickle.dumps(train))  # noqa: S301
    assert copy[4].image.equal(sample.image)


def test_an_image_may_have_several_labels_of_which_the_first_is_the_person(tmp_path: Path) -> None:
    records = {key: labelled([key % 2, 7.0, 8.0], jpeg(key)) for key in range(1, 5)}
    write_records(tmp_path / "train.rec", records)
    train = InsightFace("train", root=tmp_path)
    assert [int(train[i].target["label"]) for i in range(4)] == [1, 0, 1, 0]


@pytest.mark.parametrize("first", [2**24 + 6, 2**24 + 7, 2**24 + 9, 17_091_658, 2**26 + 5])
def test_keys_may_be_larger_than_labels_of_32_bits_tell_exactly(tmp_path: Path, first: int) -> None:
    """Glint360K has 17,091,657 images. Here: few of them, six people, an odd number of images from 2**24 on."""
    limits = [1, 3, 2**24 - 1, 2**24 + 1, 2**24 + 2, 2**24 + 3, first]
    keys = [1, 2, 3, 2**24 - 2, 2**24 - 1, 2**24, *range(2**24 + 1, 2**24 + 6), first - 1]
    owners = {key: int(np.searchsorted(limits, key, side="right")) - 1 for key in keys}
    images = {key: labelled([owner, 7.0], b"image") for key, owner in owners.items()}
    people = {first + n: labelled(limits[n : n + 2]) for n in range(6)}
    write_records(tmp_path / "train.rec", {0: labelled([first, first + 6]), **images, **people})
    train = InsightFace("train", root=tmp_path)
    assert train._keys.tolist() == list(owners)
    assert train._labels.tolist() == list(owners.values())
    assert len(train.info.classes) == 6


def test_images_of_a_person_stand_in_a_row(tmp_path: Path) -> None:
    write_training(tmp_path, [4, 4, 4])
    train = InsightFace("train", root=tmp_path, per_identity=2)
    order = train.order(np.random.default_rng(0))
    pairs = train._labels[order].reshape(-1, 2)
    assert (pairs[:, 0] == pairs[:, 1]).all()


def test_a_cut_file_names_the_record_that_it_lacks(tmp_path: Path) -> None:
    write_training(tmp_path, [2, 2], with_ranges=False)
    path = tmp_path / "train.rec"
    whole = path.read_bytes()
    path.write_bytes(whole[:-40])
    with pytest.raises(DataError, match=r"train.rec: record 4: cut off after [\d,]+ bytes; is the file complete\?"):
        InsightFace("train", root=tmp_path, bad_labels=0)
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"train.rec: record [34]: "):
        InsightFace("train", root=tmp_path, bad_labels=0)


def test_damaged_files_are_data_errors_that_say_where(tmp_path: Path) -> None:
    path, index = tmp_path / "train.rec", tmp_path / "train.idx"

    def read() -> None:
        train = InsightFace("train", root=tmp_path, bad_labels=0)
        train[len(train) - 1]

    def refused(said: str) -> None:
        with pytest.raises(DataError, match=said):
            read()

    write_training(tmp_path, [2, 2], with_ranges=False)
    whole = path.read_bytes()
    path.write_bytes(b"\0" + whole[1:])
    refused("train.rec: record 1: no record at byte 0; is it the file's index?")
    path.write_bytes(whole)
    index.write_text("1\t0\n2\t-8\n", encoding="utf-8")
    refused("train.rec: record 2: no record at byte -8")
    index.write_text("1\t0\n2\tx\n", encoding="utf-8")
    refused("train.idx: expected lines of a key and a place")
    index.write_text("1\t0\n1\t0\n", encoding="utf-8")
    refused("train.idx: key 1 stands there twice")
    index.write_bytes(b"\xff\xfe")
    refused("train.idx: cannot be read as text")
    write_records(path, {1: b"short", 2: labelled([0])})
    refused("record 1: 5 bytes, fewer than its header has")
    write_records(path, {1: struct.pack("<IfQQ", 2**31, 0, 0, 0), 2: labelled([0])})
    refused("record 1: promises 2,147,483,648 labels, and ends before")
    for wrong in (0.5, -1.0, float("nan"), float("inf")):
        write_records(path, {1: labelled([0]), 2: labelled([wrong])})
        refused(f"record 2: expected a person's number, found label {wrong:g}")
    for wrong in (0.5, -1.0, float("nan"), float("inf")):
        write_records(path, {0: labelled([wrong, 2])})
        refused(f"record 0: expected a record's key, found label {wrong:g}")
    write_records(path, {1: labelled([0]), 2: labelled([2**24])})
    refused(r"record 2: expected a person's number, found label 1\.67772e\+07")
    write_records(path, {1: labelled([0]), 2: labelled([16_000_000])})
    refused("names person 16,000,000, and has 2 images. Expected people's numbers from 0 on, at most 100 for each")
    write_records(path, {0: labelled([1, 2])})
    refused("train.rec: has no image in it")
    path.write_bytes(b"")
    refused("record 0: no record at byte 0")
    index.unlink()
    with pytest.raises(RecipeError, match=r"no file '.*train.idx', the index of the records"):
        InsightFace("train", root=tmp_path, bad_labels=0)
    path.unlink()
    with pytest.raises(RecipeError, match=r"no file '.*train.rec', which holds the images"):
        InsightFace("train", root=tmp_path, bad_labels=0)


def test_a_record_that_cannot_be_read_costs_that_record(tmp_path: Path) -> None:
    write_training(tmp_path, [2, 2], with_ranges=False)
    path = tmp_path / "train.rec"
    whole = path.read_bytes()
    path.write_bytes(whole[:-40])
    train = InsightFace("train", root=tmp_path)
    assert ([int(train[index].target["label"]) for index in range(len(train))], len(train)) == ([0, 0, 1], 3)
    assert train.omitted == {"records that cannot be read": 1}
    assert "1 of 4 records are left out, since they cannot be read: " in train.notes[0]
    assert "record 4: cut off after" in train.notes[0]


def test_a_record_that_the_file_ends_before_is_no_image(tmp_path: Path) -> None:
    """People's ranges say whose the images are, and no record of them is read when the data set is made."""
    write_training(tmp_path, [3, 3])
    index = tmp_path / "train.idx"
    lines = index.read_text(encoding="utf-8").splitlines()
    place = next(number for number, line in enumerate(lines) if line.startswith("2\t"))
    lines[place] = f"2\t{10**9}"
    index.write_text("\n".join(lines), encoding="utf-8")
    train = InsightFace("train", root=tmp_path)
    assert (len(train), train.omitted) == (5, {"records that cannot be read": 1})
    assert train[1].id == "train.rec/3"


def test_an_image_that_cannot_be_decoded_is_named_and_can_be_skipped(tmp_path: Path) -> None:
    write_records(tmp_path / "train.rec", {1: labelled([0], jpeg(1)), 2: labelled([1], jpeg(2)[:100])})
    train = InsightFace("train", root=tmp_path)
    train[0]
    with pytest.raises(BadImageError, match=r"train\.rec/2"):
        train[1]


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 400), st.integers(1, 255))
def test_a_changed_byte_is_no_crash(tmp_path_factory: pytest.TempPathFactory, place: int, change: int) -> None:
    root = tmp_path_factory.mktemp("changed")
    write_training(root, [1, 2])
    data = bytearray((root / "train.rec").read_bytes())
    data[place % len(data)] ^= change
    (root / "train.rec").write_bytes(data)
    with contextlib.suppress(DataError):
        train = InsightFace("train", root=root)
        for index in range(len(train)):
            train[index]


def test_memory_per_record_is_a_few_numbers(tmp_path: Path) -> None:
    """A hundred thousand records: the data set that a loader's worker gets has no object a record."""
    count = 100_000
    one = record(labelled([3]))
    (tmp_path / "train.rec").write_bytes(one * count)
    (tmp_path / "train.idx").write_text("".join(f"{key}\t{key * len(one)}\n" for key in range(count)), encoding="utf-8")
    train = InsightFace("train", root=tmp_path)
    assert len(train) == count
    assert len(pickle.dumps(train)) < 40 * count


def test_two_keys_have_no_place_in_common(tmp_path: Path) -> None:
    """One record of 32 bytes would stand for any number of images, and their number for that of the classes."""
    write_records(tmp_path / "train.rec", {1: labelled([199])})
    (tmp_path / "train.idx").write_text("1\t0\n2\t0\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"train\.idx: keys 1 and 2 have one place, 0"):
        InsightFace("train", root=tmp_path)


def test_a_record_ends_before_the_next(tmp_path: Path) -> None:
    """Records within each other could all be as long as the file."""
    inner = b"".join(record(labelled([key])) for key in range(3))
    (tmp_path / "train.rec").write_bytes(record(labelled([0], inner)))
    (tmp_path / "train.idx").write_text("1\t0\n2\t32\n3\t64\n", encoding="utf-8")
    # The magic numbers of those inside cut it into parts.
    with pytest.raises(DataError, match=r"record 1: reaches beyond byte \d+, where another begins; is it the file's"):
        InsightFace("train", root=tmp_path, bad_labels=0)
    (tmp_path / "train.rec").write_bytes(struct.pack("<4sI", MAGIC, 200) + labelled([0], inner).ljust(200, b"."))
    with pytest.raises(DataError, match=r"record 1: reaches beyond byte 32, where another begins; is it the file's"):
        InsightFace("train", root=tmp_path, bad_labels=0)


def test_labels_are_read_without_all_empty_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    head = labelled([1.0])
    path = tmp_path / "x.rec"
    path.write_bytes(
        struct.pack("<4sI", MAGIC, 1 << 29 | len(head)) + head + struct.pack("<4sI", MAGIC, 2 << 29) * 1000
        + struct.pack("<4sI", MAGIC, 3 << 29)
    )  # fmt: skip
    path.with_suffix(".idx").write_text("1\t0\n", encoding="utf-8")
    records, reads, read = Records(path), [], MappedFile.read
    monkeypatch.setattr(MappedFile, "read", lambda self, *at: reads.append(at) or read(self, *at))
    assert records.labels(1) == (1.0,)
    assert len(reads) < 200
    assert records.image(1) == ((1.0,), MAGIC * 1001)


@pytest.mark.parametrize("count", [63, 64])
def test_labels_that_are_the_magic_number_are_all_read(tmp_path: Path, count: int) -> None:
    label = struct.unpack("<f", MAGIC)[0]
    path = tmp_path / "x.rec"
    write_records(path, {1: labelled([label] * count, b"image")})
    assert Records(path).labels(1) == (label,) * count
