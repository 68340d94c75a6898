"""Stands between the owner and the server: stops the server when the owner is gone, however it went.

Run as a program of its own, with nothing but the standard library: the owner holds the other end of its standard input.
Nothing is ever written there; its end says that the owner has closed it, or died.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import subprocess
import sys

# Loaded here: the server's user may not be able to read Python's libraries.
_libc = ctypes.CDLL(None) if sys.platform == "linux" else None


def main() -> int:
    """Start the server, then wait for its end or the owner's."""
    uid, gid, log, *command = sys.argv[1:]
    identity: dict[str, object] = {}
    if int(uid) >= 0:
        identity = {"user": int(uid), "group": int(gid), "extra_groups": []}
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the owner decides
    woken, waker = os.pipe()
    os.set_blocking(waker, False)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
    with open(log, "ab") as output:
        server = subprocess.Popen(  # type: ignore[call-overload]
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd="/",
            start_new_session=True,
            restore_signals=True,
            preexec_fn=_die_with_guard,
            **identity,
        )
    print(server.pid, flush=True)
    while server.poll() is None:
        ready, _, _ = select.select([0, woken], [], [])
        if woken in ready:
            os.read(woken, 4096)
        if 0 in ready and not os.read(0, 4096):
            return _stop(server)
    return int(server.returncode)


def _stop(server: subprocess.Popen[bytes]) -> int:
    for number, seconds in ((signal.SIGINT, 20.0), (signal.SIGQUIT, 10.0), (signal.SIGKILL, 10.0)):
        if server.poll() is None:
            server.send_signal(number)
            try:
                server.wait(seconds)
            except subprocess.TimeoutExpired:
                continue
        return 0
    return 1


def _die_with_guard() -> None:
    """On Linux the kernel stops the server (as SIGQUIT does) should this process be killed itself."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    if _libc is not None:
        _libc.prctl(1, int(signal.SIGQUIT))  # PR_SET_PDEATHSIG


if __name__ == "__main__":
    sys.exit(main())
