"""InsightFace's verification files (`lfw.bin`, `cfp_fp.bin`, ...): pickles, read without unpickling.

A pickle is a program, and may run anything. These hold no more than a list of encoded images and one of truth values,
so that is all that is understood here: strings of bytes, numbers, lists and tuples. The one call that is known is the
one that Python 3 writes for bytes in protocol 2, `_codecs.encode(text, "latin1")`, and it is not made either.
"""

# Shapes: N images, P pairs.

from __future__ import annotations

import pickletools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mtframe.errors import DataError
from mtframe.paths import regular

from .recordio import MappedFile

# Bytes between an opcode and its text, and whether the text is UTF-8 of Latin-1.
_TEXTS = {
    "SHORT_BINSTRING": (2, False), "BINSTRING": (5, False), "SHORT_BINBYTES": (2, False), "BINBYTES": (5, False),
    "BINBYTES8": (9, False), "BYTEARRAY8": (9, False), "SHORT_BINUNICODE": (2, True), "BINUNICODE": (5, True),
    "BINUNICODE8": (9, True),
}  # fmt: skip
_NUMBERS = ("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1")
_CONSTANTS = {"NEWTRUE": True, "NEWFALSE": False}
_TUPLES = {"EMPTY_TUPLE": 0, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_CALLS = (("_codecs", "encode"), ("__builtin__", "bytes"), ("builtins", "bytes"))
_MARK = object()
_NO_NEED = "images and truth values do not need; not read"


@dataclass(frozen=True, slots=True)
class _Text:
    """Where bytes stand in the file; `wide` if as UTF-8 of Latin-1."""

    place: int
    length: int
    wide: bool
    value: str | None = None


@dataclass(frozen=True, slots=True)
class _Call:
    """A function that is named, not fetched."""

    name: str


class PickledPairs:
    """Images and pairs of a verification file: pair `i` is of images `2 i` and `2 i + 1`.

    Args:
        path: The file.

    Attributes:
        same: (P,) bool, whether both images of a pair show one person.

    Raises:
        RecipeError: There is no such file.
        DataError: It is damaged, or more than images and truth values is in it.
    """

    def __init__(self, path: Path) -> None:
        self.file = MappedFile(path, "a verification file of InsightFace such as lfw.bin")
        found = _parse(path)
        if not (isinstance(found, list) and len(found) == 2 and all(isinstance(part, list) for part in found)):
            raise DataError(f"{path}: expected a list of images and one of truth values")
        images, same = found
        if not same or len(images) != 2 * len(same) or not all(isinstance(image, _Text) for image in images):
            raise DataError(f"{path}: expected two images for each of {len(same)} pairs, found {len(images)}")
        if not all(isinstance(value, int) and value in (0, 1) for value in same):
            raise DataError(f"{path}: expected true or false for each pair")
        self.same = np.array(same, bool)
        # Arrays, not objects, which a loader's worker processes would copy.
        self._places = np.array([(image.place, image.length, image.wide) for image in images], np.int64)

    def __len__(self) -> int:
        return len(self._places)

    def image(self, index: int) -> bytes:
        """The encoded image of that number."""
        place, length, wide = (int(number) for number in self._places[index])
        data = self.file.read(place, length)
        if data is None:
            raise DataError(f"{self.file.path}: image {index}: cut off; was the file changed?")
        try:
            return data.decode("utf-8").encode("latin1") if wide else data
        except UnicodeError:
            raise DataError(f"{self.file.path}: image {index}: is text, not an image") from None


def _parse(path: Path) -> Any:
    """What is in the pickle, with `_Text` for bytes and lists for tuples."""
    try:
        with regular(path).open("rb") as file:
            return _Machine(path).run(pickletools.genops(file))
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None
    # What pickletools and a stack that is too short raise on garbage.
    except (ValueError, IndexError, KeyError, TypeError, AttributeError, OverflowError, MemoryError) as error:
        raise DataError(f"{path}: damaged or cut off, or no verification file ({error})") from None


class _Machine:
    """Follows a pickle's instructions, as far as images and truth values need them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def run(self, instructions: Iterator[tuple[Any, Any, int | None]]) -> Any:
        """What is left at the end.

        Raises:
            DataError: An instruction is none of those that are understood.
            ValueError, IndexError, ...: They make no sense.
        """
        for instruction, argument, place in instructions:
            name = instruction.name
            if name == "STOP":
                return self.stack.pop()
            if name in _TEXTS:
                self.stack.append(_text(name, argument, place or 0))
            elif name in _NUMBERS or name in _CONSTANTS:
                self.stack.append(_CONSTANTS.get(name, argument))
            elif name in ("BINPUT", "LONG_BINPUT", "PUT", "MEMOIZE"):
                self.memo[len(self.memo) if argument is None else _checked(argument)] = self.stack[-1]
            elif name in ("BINGET", "LONG_BINGET", "GET"):
                self.stack.append(self.memo[argument])
            elif name in ("GLOBAL", "STACK_GLOBAL"):
                self._name(argument)
            elif name == "REDUCE":
                self._call()
            elif name not in ("PROTO", "FRAME"):
                self._gather(name)
        raise ValueError("no end")

    def _gather(self, name: str) -> None:
        """Lists, and tuples, which are lists here."""
        if name == "MARK":
            self.stack.append(_MARK)
        elif name == "EMPTY_LIST":
            self.stack.append([])
        elif name in ("LIST", "TUPLE"):
            self.stack.append(self._above_mark())
        elif name in _TUPLES:
            self.stack.append([self.stack.pop() for _ in range(_TUPLES[name])][::-1])
        elif name in ("APPEND", "APPENDS"):
            items = [self.stack.pop()] if name == "APPEND" else self._above_mark()
            self.stack[-1].extend(items)
        else:
            raise DataError(f"{self.path}: has a pickle's {name} in it, which {_NO_NEED}")

    def _above_mark(self) -> list[Any]:
        items: list[Any] = []
        while (item := self.stack.pop()) is not _MARK:
            items.append(item)
        return items[::-1]

    def _name(self, argument: str | None) -> None:
        """A function by its name, which is not looked up."""
        name = argument.split(" ") if argument else [self.stack.pop().value for _ in range(2)][::-1]
        if tuple(name) not in _CALLS:
            raise DataError(f"{self.path}: names {'.'.join(map(str, name))}, which {_NO_NEED}")
        self.stack.append(_Call(name[1]))

    def _call(self) -> None:
        """What `_codecs.encode(text, "latin1")` and `bytes()` give."""
        arguments, call = self.stack.pop(), self.stack.pop()
        match call, arguments:
            case _Call("bytes"), []:
                self.stack.append(_Text(0, 0, False))
            case _Call("encode"), [_Text(wide=True) as text, _Text(value="latin1")]:
                self.stack.append(text)
            case _:
                raise DataError(f"{self.path}: has a call in it, which {_NO_NEED}")


def _checked(number: int) -> int:
    """A number in the memo. Larger ones, which no pickle has, may all have one hash."""
    if not 0 <= number < 2**32:
        raise ValueError(f"memo {number}")
    return number


def _text(name: str, argument: Any, place: int) -> _Text:
    head, wide = _TEXTS[name]
    length = len(argument.encode("utf-8", "surrogatepass")) if wide else len(argument)
    # Only names are short enough to be kept.
    return _Text(place + head, length, wide, argument if wide and len(argument) < 16 else None)
