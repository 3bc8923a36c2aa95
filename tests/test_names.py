"""Names in arrays."""

from __future__ import annotations

import pickle

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from mtframe.data import Names

TEXT = st.lists(st.text(st.characters(codec=None, categories=None), max_size=5), unique=True, max_size=8)


@settings(deadline=None, max_examples=60)
@given(TEXT)
def test_names_come_back_and_are_found(names: list[str]) -> None:
    packed = pickle.loads(pickle.dumps(Names(names)))  # noqa: S301
    assert packed.tolist() == [packed[place] for place in range(len(names))] == names
    ordered = packed.chosen(packed.order())
    assert ordered.tolist() == sorted(names, key=lambda name: name.encode("utf-8", "surrogatepass"))
    assert [ordered.place_of(name) for name in ordered.tolist()] == list(range(len(names)))
    assert ordered.place_of("not there") is None
    assert packed.chosen(np.arange(len(names)) % 2 == 0).tolist() == names[::2]
