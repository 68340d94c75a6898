"""Each message reaches each inbox once, however it is announced. No database; about 2 seconds."""

from __future__ import annotations

import threading
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from pgflow.store.client import topics
from pgflow.store.client.topics import Inbox, Topics
from pgflow.store.database.channels import Notice


class Clock:
    """Seconds that pass when they are told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def inbox(name: str = "a", tags: str = "{}", limit: int = 1_000) -> Inbox[Any]:
    return Inbox(name, tags, limit, False, threading.Event())


def begun(all: Topics, top: int = 0, **given: Any) -> Inbox[Any]:
    made = inbox(**given)
    all.add(made)
    all.begin(made, top, None)
    return made


def ids(box: Inbox[Any]) -> list[int]:
    found = []
    while (notice := box.take()) is not None:
        found.append(notice.id)
    return found


@st.composite
def traffic(draw: st.DrawFn) -> list[tuple[int, str, str]]:
    """Messages, in the order in which they become visible: those sent at the same moment are not in the order of
    numbers.
    """
    count = draw(st.integers(1, 30))
    made = [
        (id, draw(st.sampled_from("ab")), draw(st.sampled_from(["{}", '{"n":1}', '{"n":2,"m":null}'])))
        for id in range(1, count + 1)
    ]
    for place in draw(st.lists(st.integers(0, count - 1), max_size=10)):
        if place + 1 < count:
            made[place], made[place + 1] = made[place + 1], made[place]
    return made


ACTIONS = st.lists(st.sampled_from(["hear", "ask", "find", "wait"]), max_size=2)


@given(traffic(), st.lists(st.tuples(st.booleans(), ACTIONS), min_size=30, max_size=30))
@settings(max_examples=150, deadline=None)
def test_each_is_seen_once(sent: list[tuple[int, str, str]], plan: list[tuple[bool, list[str]]]) -> None:
    """By notification, by a look, or by both; a look sees what is visible when it begins, and ends later."""
    clock = Clock()
    all = Topics(clock)
    boxes = [begun(all, name="a"), begun(all, name="a", tags='{"n": 1.0}'), begun(all, name="b", tags='{"m": null}')]
    visible: dict[int, Notice] = {}
    told: list[Notice] = []
    look: tuple[Any, dict[int, Notice]] | None = None

    def end_look() -> None:
        assert look is not None
        asked, there = look
        found = [
            notice
            for id, notice in sorted(there.items())
            if id > asked.after.get(notice.name, id) and id not in asked.known
        ]
        assert all.find(asked, max(there, default=0), found) is False

    for (id, name, tags), (notified, actions) in zip(sent, plan, strict=False):
        notice = Notice(id, name, tags, "{}")
        visible[id] = notice
        if notified:
            told.append(notice)
        for action in actions:
            if action == "hear" and told:
                all.hear(told.pop(0))
            elif action == "ask" and look is None:
                asked = all.ask()
                assert asked is not None
                look = asked, dict(visible)
            elif action == "find" and look is not None:
                end_look()
                look = None
            elif action == "wait":
                clock.now += topics.OVERLAP / 100
    for notice in told:
        all.hear(notice)
    if look is not None:
        end_look()
    for _ in range(2):
        asked = all.ask()
        assert asked is not None
        look = asked, dict(visible)
        end_look()
    wanted: list[list[int]] = [
        [id for id, name, _ in sent if name == "a"],
        [id for id, name, tags in sent if name == "a" and tags == '{"n":1}'],
        [id for id, name, tags in sent if name == "b" and "m" in tags],
    ]
    assert [sorted(ids(box)) for box in boxes] == [sorted(expected) for expected in wanted]


def test_what_is_remembered_is_bounded() -> None:
    clock = Clock()
    all = Topics(clock)
    box = begun(all, limit=10**6)
    for id in range(1, topics.MOST_KNOWN + 101):
        all.hear(Notice(id, "a", "{}", "{}"))
    look = all.ask()
    assert look is not None and (len(look.known), look.after) == (topics.MOST_KNOWN, {"a": 100})
    clock.now += topics.OVERLAP
    look = all.ask()
    assert look is not None and (look.known, look.after) == ([], {"a": topics.MOST_KNOWN + 100})
    assert len(ids(box)) == topics.MOST_KNOWN + 100


def test_a_subscription_begins_where_the_table_ends() -> None:
    """It is spared what was sent before, also where somebody else has subscribed earlier; what came
    meanwhile it has.
    """
    all = Topics(Clock())
    early = begun(all, top=3)
    late = inbox()
    all.add(late)
    all.hear(Notice(6, "a", "{}", "{}"))
    all.begin(late, 7, Notice(7, "a", "{}", "{}"))
    for id in (4, 5, 7, 8):
        all.hear(Notice(id, "a", "{}", "{}"))
    assert ids(early) == [6, 4, 5, 7, 8]
    assert ids(late) == [6, 8], "what had come is at least as new as the last one of the table"


def test_the_last_one_comes_once() -> None:
    all = Topics(Clock())
    begun(all)
    late = inbox()
    all.add(late)
    all.begin(late, 7, Notice(5, "a", "{}", "{}"))
    for id in (5, 6, 7, 8):
        all.hear(Notice(id, "a", "{}", "{}"))
    assert ids(late) == [5, 8]


def test_numbers_that_begin_anew() -> None:
    all = Topics(Clock())
    box = begun(all, top=100)
    for id in (101, 102):
        all.hear(Notice(id, "a", "{}", "{}"))
    look = all.ask()
    assert look is not None
    all.hear(Notice(103, "a", "{}", "{}"))
    assert all.find(look, 102, []) is False, "the table was read before the newest was there"
    look = all.ask()
    assert look is not None and all.find(look, 2, []) is True
    look = all.ask()
    assert look is not None and (look.after, look.known) == ({"a": 0}, [])
    assert all.find(look, 2, [Notice(1, "a", "{}", "{}"), Notice(2, "a", "{}", "{}")]) is False
    assert ids(box) == [101, 102, 103, 1, 2]
