"""`--watch`: a command that shows something shows it again whenever it has changed, until it can change no more."""

from __future__ import annotations

import io
import sys
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from typing import Any

import click

EVERY = 1.0
"""Seconds from one look to the next."""

watch_option = click.option(
    "--watch",
    is_flag=True,
    help="Look again each second, and print it when it has changed, until it has ended or Ctrl-C is pressed. Not on a "
    "terminal, each change is printed below the last.",
)


def watched(look: Callable[[], tuple[Any, bool]], pause: Callable[[float], None] = time.sleep) -> None:
    """Call what prints something again and again. Not on a terminal, it is printed only if it has changed.

    A terminal is overwritten in one write, from its top, so that it does not flicker.

    Args:
        look: Prints something; gives what it is about, which is compared with that of before (times that pass are no
            change), and whether it has ended, so that nothing changes any more.
        pause: Waits that many seconds.

    Example:
        watched(lambda: (show(id), is_over(id)))
    """
    last: Any = _NOTHING
    terminal = sys.stdout.isatty()
    try:
        while True:
            with redirect_stdout(_LikeTerminal(terminal)) as caught:
                state, ended = look()
            if terminal:
                click.echo(f"\x1b[2J\x1b[H{caught.getvalue()}", nl=False)
            elif state != last:
                click.echo(caught.getvalue(), nl=False)
            last = state
            if ended:
                return
            pause(EVERY)
    except KeyboardInterrupt:
        return


_NOTHING = object()


class _LikeTerminal(io.StringIO):
    """Text in memory that is printed to a terminal, or is not: tables are as wide as what they go to."""

    def __init__(self, terminal: bool) -> None:
        super().__init__()
        self._terminal = terminal

    def isatty(self) -> bool:
        """Whether it goes to a terminal."""
        return self._terminal
