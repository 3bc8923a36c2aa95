"""PyAV, which brings FFmpeg: optional, and told of where it is missing."""

from __future__ import annotations

from typing import Any

from mtframe.errors import DataError


def pyav() -> Any:
    """The module `av`. Raises DataError if it is not installed."""
    try:
        import av
    except ImportError as error:
        raise DataError(
            f"films and cameras are read by PyAV, which is not installed ({error}); install it with "
            "pip install 'mtframe[video]'"
        ) from None
    return av
