"""What activities keep with their workflow: `ActivityContext.state` and tags, merged key by key in the order of
results.

The run holds the lease, so what it holds in memory is the truth. Each attempt works on a copy; when it succeeds, what
it changed joins the next write, in the same transaction as its result. Changes of failed attempts are dropped.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from pgflow.codec import encode
from pgflow.codec.unreadable import parsed
from pgflow.definitions.tags import tags_text
from pgflow.errors import SerializationError


class Changes(NamedTuple):
    """What one attempt has changed.

    Attributes:
        put: keys of the state that it set, with their values as JSON text.
        removed: keys of the state that it deleted.
        tags: tags that it set.
    """

    put: Mapping[str, str]
    removed: frozenset[str]
    tags: Mapping[str, Any]


class ActivityState:
    """State and tags of one workflow: as they were handed over last, and the changes gathered since.

    Args:
        state: a JSON object, or None: nothing is kept.
        tags: the workflow's tags now.
    """

    __slots__ = ("_members", "_tags", "gathered", "text")

    def __init__(self, state: str | None, tags: Mapping[str, Any]) -> None:
        self.text = state
        """The state as it was handed over last: what an attempt gets a copy of."""
        self._members: Mapping[str, str] | None = None
        self._tags = tags
        self.gathered: list[Changes] = []
        """What attempts have changed since the last write."""

    def check(self, changes: Changes, limit: int) -> None:
        """Refuse changes after which state or tags would be too large.

        Args:
            limit: the largest state, in bytes of JSON.

        Raises:
            SerializationError: they would be.
        """
        state, tags = self._after([*self.gathered, changes])
        if changes.tags:
            tags_text(tags)
        if (size := len(_object(state).encode())) > limit and changes.put:
            raise SerializationError(
                f"the workflow's state would be {size:,} bytes of JSON; expected at most {limit:,}. Store large data "
                "elsewhere and keep a reference to it in ctx.state, or raise the worker's `payload_limit`."
            )

    def gather(self, changes: Changes) -> None:
        """Take what an attempt changed for the next write."""
        self.gathered.append(changes)

    def drop(self, changes: Changes | None = None) -> None:
        """Forget what has been gathered, or one attempt's part of it: its result is not written."""
        if changes is None:
            self.gathered.clear()
        else:
            self.gathered = [other for other in self.gathered if other is not changes]

    def texts(self, changes: Changes | None = None) -> tuple[str | None, str | None]:
        """State and tags as JSON with what is gathered, or with one attempt's changes alone; None for what is
        unchanged.
        """
        chosen = self.gathered if changes is None else [changes]
        if not chosen:
            return None, None
        state, tags = self._after(chosen)
        moved = any(each.put or each.removed for each in chosen)
        return (
            _object(state) if moved else None,
            tags_text(tags) if any(each.tags for each in chosen) else None,
        )

    def hand_over(self, changes: Changes | None = None) -> None:
        """What is gathered, or one attempt's part of it, has been handed over or is durable: later attempts see it."""
        chosen = self.gathered if changes is None else [changes]
        if chosen:
            self._members, self._tags = self._after(chosen)
            self.text = _object(self._members)
            self.drop(changes)

    def _after(self, changes: list[Changes]) -> tuple[dict[str, str], dict[str, Any]]:
        if self._members is None:
            self._members = members(self.text)
        state, tags = dict(self._members), dict(self._tags)
        for each in changes:
            state.update(each.put)
            for key in each.removed:
                state.pop(key, None)
            tags.update(each.tags)
        return state, tags


def members(text: str | None) -> dict[str, str]:
    """The members of a JSON object, each value as JSON text."""
    if text is None:
        return {}
    found = parsed(text)
    if not isinstance(found, dict):
        raise SerializationError(
            f"the workflow's state is no JSON object that can be read: {text[:200]}. Was it written by SQL?"
        )
    return {key: _encoded(key, value) for key, value in found.items()}


def changes_between(before: str | None, after: Mapping[Any, Any], tags: Mapping[str, Any]) -> Changes | None:
    """What an attempt made of its copy of the state; None when it changed nothing.

    Args:
        before: the state that it was given, a JSON object.
        after: what it left.
        tags: the tags that it set.

    Raises:
        SerializationError: a key is no text, or a value cannot be stored.

    Example:
        >>> changes_between('{"done":1}', {"done": 2}, {})
        Changes(put={'done': '2'}, removed=frozenset(), tags={})
    """
    known = members(before)
    for key in after:
        if not isinstance(key, str):
            raise SerializationError(f"ctx.state has the key {key!r}; expected texts as keys")
    now = {key: _encoded(key, value) for key, value in after.items()}
    put = {key: text for key, text in now.items() if known.get(key) != text}
    removed = frozenset(known.keys() - now.keys())
    return Changes(put, removed, dict(tags)) if put or removed or tags else None


def _encoded(key: str, value: Any) -> str:
    # The total is limited where the changes are merged.
    return encode(value, what=f'ctx.state["{key}"]', limit=1 << 30)


def _object(state: Mapping[str, str]) -> str:
    return "{" + ",".join(f"{encode(key, what='a key of ctx.state')}:{text}" for key, text in state.items()) + "}"
