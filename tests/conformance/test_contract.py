"""mtframe's own components keep the contract that others' are held to."""

from __future__ import annotations

import pytest

from mtframe.testing import conformance

# TensorBoard's own, and protobuf's.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

test_contract = conformance("mtframe")
