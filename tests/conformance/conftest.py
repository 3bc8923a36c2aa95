from __future__ import annotations

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # Each module in a process of its own, of which most import torch: half a minute. That plugins import silently in
    # one process is tested always.
    for item in items:
        if (
            item.path.parent.name == "conformance"
            and item.name.endswith("-imports-silently]")
            and ":task" not in item.name
        ):
            item.add_marker(pytest.mark.slow)
