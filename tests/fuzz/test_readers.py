"""Whatever is in a file: a result or a message, never another exception or a warning.

Many more inputs, with counts: `FUZZ_SECONDS=10 pytest -n 0 -m slow tests/fuzz -s`, so many seconds for each reader.
"""

from __future__ import annotations

from pathlib import Path

import dataset_files
import other_files
import pytest
import run_files
from campaign import FEW, try_many
from hypothesis import given, settings
from reader import Fed

READERS = [*dataset_files.READERS, *other_files.READERS, *run_files.READERS]
EXAMPLES = 16


@pytest.fixture(params=READERS, ids=lambda reader: reader.name)
def fed(request: pytest.FixtureRequest, tmp_path: Path) -> Fed:
    (tmp_path / "home").mkdir()
    return Fed(request.param, tmp_path / "home")


def test_a_changed_file_is_read_or_refused(fed: Fed) -> None:
    assert not fed.is_refused(fed.valid), "every input would be refused, for one reason"

    @settings(FEW, max_examples=max(2, EXAMPLES // fed.reader.slow))
    @given(fed.inputs())
    def try_few(data: bytes) -> None:
        fed.is_refused(data)

    try_few()


@pytest.mark.slow
@pytest.mark.timeout(0)
def test_many_more(fed: Fed, tmp_path: Path) -> None:
    try_many(fed.reader.name, fed.inputs(), fed.is_refused, tmp_path)
