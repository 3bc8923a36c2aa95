"""What is fuzzed: a file among others, how it may be changed, and what reads it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from hypothesis import strategies as st
from mutations import Form, changed

from mtframe.errors import MtframeError


@dataclass(frozen=True)
class Reader:
    """Something that reads files which may be a stranger's.

    Attributes:
        name: In reports.
        make: Writes a valid folder.
        file: The file in it that is changed.
        form: What it is, for changes that leave it well-formed; None for bytes alone.
        read: Reads and uses what is in the folder. May raise MtframeError, and nothing else.
        slow: How many times as long it takes as others do, so that it gets as many fewer examples.
    """

    name: str
    make: Callable[[Path], object]
    file: str
    form: Form | None
    read: Callable[[Path], object]
    slow: int = 1


class Fed:
    """A reader with its folder, to be given one file after the other."""

    def __init__(self, reader: Reader, home: Path) -> None:
        self.reader, self.home = reader, home
        reader.make(home)
        self._file = home / reader.file
        self.valid = self._file.read_bytes()

    def inputs(self) -> st.SearchStrategy[bytes]:
        """Files that are wrong somewhere."""
        return st.composite(lambda draw: changed(draw, self.valid, self.reader.form))()

    def is_refused(self, data: bytes) -> bool:
        """Whether a file is refused with a message. Raises what the reader must not raise."""
        self._file.write_bytes(data)
        try:
            self.reader.read(self.home)
        except MtframeError:
            return True
        return False
