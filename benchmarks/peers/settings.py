"""With which settings each peer did best, found by trying; of pgflow the defaults."""

from __future__ import annotations

BEST: dict[str, dict[str, str]] = {
    "pgflow": {},
    "absurd": {"ABSURD_LOOPS": "8", "ABSURD_CONC": "20"},
    "dbos": {"DBOS_THREADS": "8"},
    "pgqueuer": {"PGQ_BATCH": "300"},
    "oban": {"OBAN_LIMIT": "300"},
    "procrastinate": {"PROC_CONC": "20"},
}

AT_WORK: dict[tuple[str, str], dict[str, str]] = {
    ("dbos", "W3"): {"DBOS_POLL": "0.01"},
    ("dbos", "W4"): {"DBOS_KIND": "async"},
    ("pgqueuer", "W3"): {"PGQ_BATCH": "1"},
}
"""Other settings for one kind of work."""


def environment(peer: str, work: str) -> dict[str, str]:
    """The environment variables for a peer at one kind of work."""
    return {**BEST.get(peer, {}), **AT_WORK.get((peer, work), {})}
