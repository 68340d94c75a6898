"""What workers of an older build leave to those of a newer one, for a moment: work that both could take.

Each worker says with its registration which build it is and what it serves. Whoever looks for dead workers also sees
those of newer builds, and its claims then take of what these serve only what has been due for `WAIT` seconds. Where
there is none, claims are the usual statement.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from functools import cache

QueueAndName = tuple[str, str]
"""A pair that a worker serves: a queue, and the name of a workflow."""

WAIT = 5.0
"""Seconds for which older builds leave to newer ones what is due."""

_REPLACED = (
    (b"given.priority, given.since\n", b"given.priority, given.since, make_interval(secs => given.wait) AS wait\n", 1),
    (
        b"%(since)s::timestamptz[])\nWITH ORDINALITY AS given (queue, name, priority, since, level)",
        b"%(since)s::timestamptz[], %(waits)s::float8[])\n"
        b"WITH ORDINALITY AS given (queue, name, priority, since, wait, level)",
        1,
    ),
    (b"r.wake_at <= now() AND r.suspicions IS NULL", b"r.wake_at <= now() - levels.wait AND r.suspicions IS NULL", 2),
    (b"r.wake_at > now() AND", b"r.wake_at > now() - levels.wait AND", 1),
    (b"SELECT min(first.wake_at)", b"SELECT min(first.wake_at + levels.wait)", 1),
)


@cache
def claim_that_waits(usual: bytes) -> bytes:
    """The statement of a claim by a worker to some of whose levels `waits` applies: how many seconds each leaves what
    is due to others.

    Args:
        usual: that of all others, `claim.sql`.
    """
    for old, new, times in _REPLACED:
        assert usual.count(old) == times, old
        usual = usual.replace(old, new)
    return usual


def left_to_newer(
    newer: Iterable[tuple[Collection[str], Collection[str]]], queues: Collection[str], names: Collection[str]
) -> frozenset[QueueAndName]:
    """The pairs of a worker that workers of newer builds serve as well.

    Args:
        newer: the queues and names of each of these.
        queues: those of the worker.
        names: those of the worker.

    Example:
        >>> left_to_newer([(["a", "b"], ["x"])], ["b", "c"], ["x", "y"])
        frozenset({('b', 'x')})
    """
    found: set[QueueAndName] = set()
    for theirs, known in newer:
        found.update((queue, name) for queue in queues if queue in theirs for name in names if name in known)
    return frozenset(found)


def described(pairs: frozenset[QueueAndName], build: str | None) -> str:
    """What is left to newer builds, for the log."""
    own = "this worker says no build" if build is None else f"this worker is of build {build}"
    if not pairs:
        return f"no worker of a newer build serves what this one does any more ({own}): everything due is taken at once"
    names = ", ".join(sorted({name for _, name in pairs}))
    return f"workers of a newer build serve {names:.300} too ({own}): of these is taken what was due for {WAIT:g} s"
