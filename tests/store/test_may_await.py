"""Who may still await a workflow: the function of the schema beside a model of histories, at random."""

from __future__ import annotations

import random
from uuid import UUID, uuid4

import psycopg

from pgflow.history.location import encode

CASES = 40
"""Histories; of each several places are asked about."""


class History:
    """A workflow that starts a child in each turn of loops within loops, as far as it has come.

    Args:
        chance: decides how far that is.
    """

    def __init__(self, chance: random.Random) -> None:
        self.id = uuid4()
        self.live = chance.random() < 0.8
        self.rows: dict[str, tuple[str, str, UUID | None, int | None]] = {}
        """Active history: kind, status, the child, and how many turns are forgotten, by location."""
        self.awaits: dict[str, tuple[UUID, bool]] = {}
        """By location of a dispatch: the child, and whether the code may still await it."""
        self._chance = chance
        self._body((), 0, False)

    def _body(self, above: tuple[int, ...], depth: int, forgotten: bool) -> None:
        """A stretch of steps below a place, the last of which may not be recorded yet."""
        for number in range(1, self._chance.randint(1, 6)):
            place = (*above, number)
            if depth < 2 and self._chance.random() < 0.3:
                self._loop(place, depth, forgotten)
            else:
                self._dispatch(place, forgotten)

    def _loop(self, place: tuple[int, ...], depth: int, forgotten: bool) -> None:
        progress, broken = self._chance.randint(0, 11), self._chance.random() < 0.2
        if not forgotten:
            self.rows[stored(place)] = ("loop", "completed" if broken else "pending", None, progress)
        for turn in {progress - 1, progress, self._chance.randint(0, 12)}:
            if turn >= 0:
                self._body((*place, turn + 1), depth + 1, forgotten or broken or turn < progress)

    def _dispatch(self, place: tuple[int, ...], forgotten: bool) -> None:
        child, at = uuid4(), stored(place)
        what = self._chance.choice(["recorded", "recorded", "not yet", "pending", "cancelled", "another"])
        if forgotten:
            what = "forgotten"
        elif what == "recorded":
            self.rows[at] = ("child_workflow", "completed", child, None)
        elif what == "another":
            self.rows[at] = ("child_workflow", "completed", uuid4(), None)
        elif what in ("pending", "cancelled"):
            self.rows[at] = ("child_workflow", what, None, None)
        self.awaits[at] = (child, self.live and what in ("recorded", "not yet", "pending"))


def stored(place: tuple[int, ...]) -> str:
    return encode(tuple((number,) for number in place))


def test_it_says_what_the_model_says(dsn: str) -> None:
    histories = [History(random.Random(seed)) for seed in range(CASES)]
    with psycopg.connect(dsn, autocommit=True) as sql, sql.cursor() as cursor:
        for history in histories:
            if history.live:
                cursor.execute(
                    "INSERT INTO pgflow.runs (workflow_id, name, status) VALUES (%s, 'flow', 'sleeping')", [history.id]
                )
            cursor.executemany(
                "INSERT INTO pgflow.events (workflow_id, location, kind, status, output, loop_progress) "
                "VALUES (%s, %s, %s, %s, %s, %s)",
                [
                    (history.id, at, kind, status, None if child is None else f'{{"id":"{child}"}}', progress)
                    for at, (kind, status, child, progress) in history.rows.items()
                ],
            )
        wrong = []
        seen = set()
        for history in histories:
            for at, (child, expected) in history.awaits.items():
                row = cursor.execute("SELECT pgflow.may_await(%s, %s, %s)", [history.id, at, child]).fetchone()
                seen.add(expected)
                if row != (expected,):
                    wrong.append((at, history.rows.get(at), expected))
        assert seen == {True, False} and wrong == []
