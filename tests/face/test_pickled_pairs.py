"""Verification files are pickles; nothing in them is executed."""

from __future__ import annotations

import contextlib
import os
import pickle
import re
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtframe.data import DataInfo
from mtframe.errors import DataError, RecipeError
from mtframe_face._pickled_pairs import PickledPairs
from mtframe_face.insightface import InsightFace
from mtframe_face.verification import FaceVerification
from record_files import jpeg


def category(metric: FaceVerification) -> tuple[str, ...]:
    """What its notes say of View 2's rules."""
    return tuple(note for note in metric.notes if note.startswith("LFW View 2"))


def _write(path: Path, content: Any, protocol: int) -> Path:
    path.write_bytes(pickle.dumps(content, protocol=protocol))
    return path


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.binary(max_size=300), st.binary(max_size=300), st.booleans()), min_size=1, max_size=6),
    st.sampled_from([2, 3, 4, 5]),
    st.booleans(),
)
def test_what_pickle_wrote_is_read(
    tmp_path_factory: pytest.TempPathFactory, pairs: list[tuple[bytes, bytes, bool]], protocol: int, in_list: bool
) -> None:
    images, same = [image for pair in pairs for image in pair[:2]], [pair[2] for pair in pairs]
    content = [images, same] if in_list else (images, same)
    found = PickledPairs(_write(tmp_path_factory.mktemp("bin") / "x.bin", content, protocol))
    assert [found.image(index) for index in range(len(found))] == images
    assert found.same.tolist() == same


def _python_2(images: list[bytes], same: list[bool]) -> bytes:
    """Protocol 2 of Python 2, whose bytes are BINSTRING; InsightFace's own files are of this kind."""
    strings = b"".join(b"T" + struct.pack("<i", len(image)) + image + b"q\x02" for image in images)
    truth = b"".join(b"\x88" if value else b"\x89" for value in same)
    return b"\x80\x02]q\x00(" + strings + b"e]q\x03(" + truth + b"e\x86q\x04."


def test_files_of_python_2_are_read(tmp_path: Path) -> None:
    images = [jpeg(0), jpeg(1), b"", b"\xff" * 300]
    (tmp_path / "lfw.bin").write_bytes(_python_2(images, [True, False]))
    found = PickledPairs(tmp_path / "lfw.bin")
    assert [found.image(index) for index in range(4)] == images
    assert found.same.tolist() == [True, False]


def test_a_verification_file_is_a_split_with_ten_folds(tmp_path: Path) -> None:
    images, same = [jpeg(n) for n in range(40)], [n % 4 < 2 for n in range(20)]
    _write(tmp_path / "lfw.bin", (images, same), 4)
    val = InsightFace("val", root=tmp_path)
    assert (len(val), val[3].id, int(val[3].target["label"])) == (40, "lfw.bin/3", -1)
    assert val.pairs is not None
    assert val.pairs.first.tolist() == list(range(0, 40, 2))
    assert val.pairs.second.tolist() == list(range(1, 40, 2))
    assert val.pairs.same.tolist() == same
    assert val.pairs.fold.tolist() == [n // 2 for n in range(20)]
    FaceVerification(val, val.info)
    assert "training people in it go unnoticed" in val.notes[0]
    copy = pickle.loads(pickle.dumps(val))  # noqa: S301
    assert copy[3].image.equal(val[3].image)
    with pytest.raises(RecipeError, match=r"no file '.*agedb_30.bin', a verification file of InsightFace"):
        InsightFace("test", root=tmp_path)
    assert len(InsightFace("test", root=tmp_path, test="lfw.bin")) == 40


def test_the_six_thousand_pairs_of_lfw_are_view_2s(tmp_path: Path) -> None:
    content = [b"image"] * 12_000, [n // 300 % 2 == 0 for n in range(6000)]
    for name in ("lfw.bin", "other.bin"):
        _write(tmp_path / name, content, 4)
    val, test = InsightFace("val", root=tmp_path), InsightFace("test", root=tmp_path, test="other.bin")
    assert val.pairs is not None
    assert np.bincount(val.pairs.fold, val.pairs.same).tolist() == [300] * 10
    assert val.notes[1:] == ("val: these are the 6,000 pairs of LFW View 2",)
    learned = DataInfo("identity", ("0", "1", "2"))
    assert category(FaceVerification(val, learned)) == (
        "LFW View 2: Unrestricted, Labeled Outside Data (UM-CS-2014-003): learned from 3 people of other data",
    )
    assert category(FaceVerification(test, learned)) == ()
    assert len(test.notes) == 1


class _Evil:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("hidden", [False, True])
def test_a_pickle_that_would_run_something_is_refused_and_not_run(tmp_path: Path, protocol: int, hidden: bool) -> None:
    evil = _Evil(tmp_path / "made")
    content = ([evil, b"b"], [True]) if hidden else evil
    path = _write(tmp_path / "evil.bin", content, protocol)
    with pytest.raises(DataError, match=r"evil.bin: .*not read"):
        PickledPairs(path)
    assert not (tmp_path / "made").exists()
    pickle.loads(path.read_bytes())  # noqa: S301
    assert (tmp_path / "made").exists(), "the test's pickle would do nothing anyway"


@pytest.mark.parametrize(
    "content",
    [
        # Calls the known function in another way than Python writes bytes.
        b"\x80\x02c_codecs\nencode\nX\x01\x00\x00\x00aX\x05\x00\x00\x00utf_7\x86R.",
        b"\x80\x02c_codecs\nencode\n)R.",
        b"\x80\x02c_codecs\nencode\nq\x00h\x00h\x00\x86R.",
        b"\x80\x02c__builtin__\nbytes\nK\x09\x85R.",
        b"\x80\x02c_codecs\ndecode\n.",
        b"\x80\x04\x8c\x02os\x8c\x06system\x93.",
        b"\x80\x02}.",
        b"cbuiltins\neval\n(S'1'\ntR.",
    ],
)  # fmt: skip
def test_other_instructions_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.bin").write_bytes(content)
    with pytest.raises(DataError, match=r"x\.bin: "):
        PickledPairs(tmp_path / "x.bin")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ([b"a", b"b"], "expected a list of images and one of truth values"),
        (([b"a"], [True]), "expected two images for each of 1 pairs, found 1"),
        (([], []), "expected two images for each of 0 pairs"),
        (([1, 2], [True]), "expected two images for each of 1 pairs"),
        (([b"a", b"b"], [b"yes"]), "expected true or false for each pair"),
        (([b"a", b"b"], [3]), "expected true or false for each pair"),
        (b"abc", "expected a list of images"),
    ],
)
def test_what_is_no_list_of_pairs_is_refused(tmp_path: Path, content: Any, said: str) -> None:
    with pytest.raises(DataError, match=said):
        PickledPairs(_write(tmp_path / "x.bin", content, 4))


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_damage_is_a_data_error_and_never_a_crash(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    protocol = data.draw(st.sampled_from([2, 3, 4]))
    whole = bytearray(pickle.dumps(([bytes(range(256)), b"b", b"c", b""], [True, False]), protocol=protocol))
    if data.draw(st.booleans()):
        whole = whole[: data.draw(st.integers(0, len(whole) - 1))]
    for _ in range(data.draw(st.integers(0, 3)) if whole else 0):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("damaged") / "x.bin"
    path.write_bytes(whole)
    with contextlib.suppress(DataError):
        found = PickledPairs(path)
        for index in range(len(found)):
            found.image(index)


def test_a_promise_of_gigabytes_costs_none(tmp_path: Path) -> None:
    for opcode, size in ((b"\x8e", "<Q"), (b"\x96", "<Q"), (b"B", "<I"), (b"X", "<I"), (b"T", "<i")):
        (tmp_path / "x.bin").write_bytes(b"\x80\x05" + opcode + struct.pack(size, 2**31 - 1) + b"abc.")
        with pytest.raises(DataError, match="damaged or cut off"):
            PickledPairs(tmp_path / "x.bin")


def test_the_same_numbers_are_in_memory_whatever_the_images_weigh(tmp_path: Path) -> None:
    images = [np.random.default_rng(0).bytes(20_000)] * 200
    found = PickledPairs(_write(tmp_path / "x.bin", (images, [True] * 100), 4))
    assert len(pickle.dumps(found)) < 20_000


def test_numbers_of_the_memo_are_not_of_one_hash(tmp_path: Path) -> None:
    good = b"(" + b"".join(b"I01\np%d\n" % number for number in range(3)) + b"l."
    bad = good.replace(b"p2", b"p%d" % (2**61 - 1))
    for content, message in ((good, "expected"), (bad, "damaged or cut off.*memo 2305843009213693951")):
        (tmp_path / "x.bin").write_bytes(content)
        with pytest.raises(DataError) as error:
            PickledPairs(tmp_path / "x.bin")
        assert re.search(message, str(error.value))
