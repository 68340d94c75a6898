"""Pauses between tries: they grow with each failure in a row, up to a bound, however many fail."""

from __future__ import annotations

from pgflow.store.database.backoff import Backoff


def test_each_pause_is_twice_the_one_before_up_to_the_longest() -> None:
    backoff = Backoff(0.5, 3.0)
    assert [backoff.pause() for _ in range(5)] == [0.5, 1.0, 2.0, 3.0, 3.0]


def test_a_success_begins_anew() -> None:
    backoff = Backoff(0.5, 3.0)
    backoff.pause(), backoff.pause()
    backoff.reset()
    assert backoff.pause() == 0.5


def test_the_first_is_bounded_too() -> None:
    assert Backoff(20.0, 10.0).pause() == 10.0


def test_spread_pauses_grow_alike() -> None:
    backoff = Backoff(1.0, 4.0)
    for longest in (1.0, 2.0, 4.0, 4.0):
        assert longest / 2 <= backoff.spread_pause() <= longest


def test_an_outage_of_hours_is_no_error() -> None:
    """Two to the power of the number of failures is none after some thousand of them: it is too large for a float."""
    backoff = Backoff(1.0, 10.0)
    for _ in range(5_000):
        assert backoff.pause() <= 10.0
