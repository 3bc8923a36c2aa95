"""`mtframe` and `python -m mtframe`: the command line, which Ctrl-C ends without a traceback from the first moment."""

from __future__ import annotations

import signal


def main() -> None:
    """The console script."""
    # An import that is interrupted prints where; until the command line has its own say, the signal just ends it.
    listens = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if listens:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from mtframe.cli import main

    if listens:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    main()


if __name__ == "__main__":
    main()
