"""What one client subscribes to, and how each message reaches each inbox once. No I/O: both clients use it.

    a notification, or a look at the table -> known already, or sent late? -- dropped
                                                  | no
                                                  '-> the inboxes of that name whose tags it contains

A message may be announced twice, by its notification and by a look at the table. The numbers of recent messages are
remembered, and a look goes back to the last one before those, because of two messages sent at the same moment the one
with the higher number may become visible first.

Messages of one workflow arrive in order: a message that a worker sends late, after another worker had the workflow and
sent later ones, is recognised by its place and dropped.
"""

from __future__ import annotations

import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable
from typing import Any, Generic, Protocol, TypeVar
from uuid import UUID
from weakref import WeakSet

from pgflow.definitions.tags import tag_set
from pgflow.store.database.channels import Notice

OVERLAP = 2.0
"""Seconds for which the number of a message is remembered, and by which a look goes back."""

MOST_KNOWN = 10_000
"""The most numbers that are remembered."""

MOST_SENDERS = 10_000
"""The most pairs of workflow and kind of message for which the last message is remembered."""


FORKED = "this subscription was made before a fork, in the parent process: subscribe again in each process"
"""The error of a subscription that is read in a child process."""


class EventLike(Protocol):
    """What a waiting task or thread waits for: an `Event` of `asyncio` or `threading`."""

    def set(self) -> object:
        """Wake the waiters."""
        ...

    def clear(self) -> object:
        """Let the next one wait."""
        ...


F = TypeVar("F", bound=EventLike)


class Inbox(Generic[F]):
    """The messages that wait for one subscriber: a bounded queue that drops the oldest.

    Args:
        name: of the messages.
        tags: those that the messages contain, as JSON text.
        limit: the most messages that wait.
        last: begin with the last one sent before.
        arrived: set when there is one, or the end.
    """

    def __init__(self, name: str, tags: str, limit: int, last: bool, arrived: F) -> None:
        self.name = name
        self.tags = tags
        self.wanted = tag_set(tags)
        self.last = last
        self.arrived = arrived
        self.begun = False
        self.closed = False
        self.error: Exception | None = None
        """Why it was closed, unless the subscriber wished so."""
        self.dropped = 0
        """Messages that the subscriber has missed because it was too slow."""
        self.after = 0
        """Messages up to this number were sent before it and are not for it."""
        self._limit = limit
        self._waiting: deque[Notice] = deque()

    def __len__(self) -> int:
        return len(self._waiting)

    def offer(self, notice: Notice) -> None:
        """Take a message, unless it was sent before the subscription began."""
        if notice.id > self.after and not self.closed:
            self._append(notice)

    def begin(self, top: int, last: Notice | None) -> None:
        """The subscription has begun; `top` is the highest number given out before it."""
        self.after = top
        self.begun = True
        if last is not None and not self._waiting:  # what waits already is at least as recent
            self._append(last)

    def take(self) -> Notice | None:
        """The next message, if there is one."""
        if self._waiting:
            return self._waiting.popleft()
        self.arrived.clear()
        if self.closed:
            self.arrived.set()
        return None

    def put_back(self, notice: Notice) -> None:
        """Undo a `take`."""
        if len(self._waiting) < self._limit:
            self._waiting.appendleft(notice)
        else:
            self.dropped += 1

    def close(self, error: Exception | None = None) -> None:
        """End it: nothing more arrives, and calls that wait raise an error."""
        self.closed = True
        self.error = error
        self._waiting.clear()
        self.arrived.set()

    def _append(self, notice: Notice) -> None:
        if len(self._waiting) >= self._limit:
            self._waiting.popleft()
            self.dropped += 1
        self._waiting.append(notice)
        self.arrived.set()


class _Topic:
    """The subscriptions of one name. An inbox that its owner has forgotten is forgotten here as well."""

    def __init__(self) -> None:
        self.inboxes: WeakSet[Inbox[Any]] = WeakSet()
        self.start: int | None = None
        """Messages up to this number are for nobody; None: no subscription has begun yet."""


class Topics:
    """All subscriptions of one client.

    Args:
        clock: seconds that never go back.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._topics: dict[str, _Topic] = {}
        self._known: dict[int, float] = {}
        self._places: OrderedDict[tuple[str, UUID], int] = OrderedDict()
        """The place of the last message passed on, for each workflow and kind of message."""
        self._floor = 0
        """Messages up to this number have been passed on, or were missed."""
        self._highest = 0

    def __bool__(self) -> bool:
        """Whether anybody subscribes to anything."""
        self._topics = {name: topic for name, topic in self._topics.items() if topic.inboxes}
        return bool(self._topics)

    def add(self, inbox: Inbox[Any]) -> None:
        """Messages go into this inbox from now on."""
        self._topics.setdefault(inbox.name, _Topic()).inboxes.add(inbox)

    def begin(self, inbox: Inbox[Any], top: int, last: Notice | None) -> None:
        """A subscription has begun; `top` is the highest number in the table after it was added."""
        topic = self._topics.get(inbox.name)
        if topic is None or inbox.begun or inbox.closed:
            return
        if topic.start is None:
            topic.start = top
        if last is not None:
            self._is_late(last)
        inbox.begin(top, last)

    def discard(self, inbox: Inbox[Any]) -> None:
        """No more messages go into this inbox."""
        topic = self._topics.get(inbox.name)
        if topic is not None:
            topic.inboxes.discard(inbox)

    def inboxes(self) -> list[Inbox[Any]]:
        """All of them."""
        return [inbox for topic in self._topics.values() for inbox in topic.inboxes]

    def hear(self, notice: Notice) -> None:
        """A message has been announced, by a notification or a look."""
        topic = self._topics.get(notice.name)
        if topic is None or notice.id <= self._floor or notice.id in self._known:
            return
        self._know(notice.id)
        if self._is_late(notice):
            return
        try:
            tags = tag_set(notice.tags)
        except ValueError:
            return  # anybody may notify
        for inbox in list(topic.inboxes):
            if inbox.wanted <= tags:
                inbox.offer(notice)

    def ask(self) -> TopicPoll | None:
        """What to look for in the table; None: nothing."""
        self._forget()
        after = {
            name: max(topic.start, self._floor)
            for name, topic in self._topics.items()
            if topic.start is not None and topic.inboxes
        }
        return TopicPoll(after, list(self._known), self._highest) if after else None

    def find(self, look: TopicPoll, top: int, notices: Iterable[Notice]) -> bool:
        """A look at the table brought these; `top` is the highest number in it.

        Returns:
            Whether the numbers have started again (a server's crash empties the table), so that another look is due.
        """
        if top < look.highest:
            self._floor = self._highest = 0
            self._known.clear()
            for topic in self._topics.values():
                topic.start = None if topic.start is None else 0
            for inbox in self.inboxes():
                inbox.after = 0
            return True
        for notice in notices:
            self.hear(notice)
        return False

    def _is_late(self, notice: Notice) -> bool:
        """Whether a later message of the same workflow and kind has been passed on already."""
        if notice.workflow_id is None or notice.place is None:
            return False
        sender = notice.name, notice.workflow_id
        if self._places.get(sender, 0) > notice.place:
            return True
        self._places[sender] = notice.place
        self._places.move_to_end(sender)
        if len(self._places) > MOST_SENDERS:
            self._places.popitem(last=False)
        return False

    def _know(self, id: int) -> None:
        self._known[id] = self._clock()
        self._highest = max(self._highest, id)
        self._forget()

    def _forget(self) -> None:
        old = self._clock() - OVERLAP
        while self._known:
            id, since = next(iter(self._known.items()))
            if since > old and len(self._known) <= MOST_KNOWN:
                return
            del self._known[id]
            self._floor = max(self._floor, id)


class TopicPoll:
    """One look at the table: after which number to look for each name, what is known, the highest number known of."""

    def __init__(self, after: dict[str, int], known: list[int], highest: int) -> None:
        self.after = after
        self.known = known
        self.highest = highest
