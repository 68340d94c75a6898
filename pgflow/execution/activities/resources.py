"""What activities of a process share: its clients, pools and gateways, found by their type (`ctx.resource`)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeVar

from pgflow.definitions.functions import place
from pgflow.errors import PgflowError

T = TypeVar("T")


class Resources:
    """Objects of one process, at most one of each type.

    Args:
        objects: these objects.
        giver: where they come from, for messages.

    Raises:
        TypeError: a class in place of an object, or nothing that can be gone through.
        ValueError: two objects of one type.

    Example:
        Resources([Gateway("https://bank.example")], "Worker(objects=[...])").get(Gateway, "charge")
    """

    def __init__(self, objects: Iterable[Any], giver: str) -> None:
        if not isinstance(objects, Iterable) or isinstance(objects, str):
            raise TypeError(f"{giver}: expected a list of objects, found {objects!r:.200}")
        self._objects: list[Any] = []
        self._found: dict[Any, Any] = {}
        self._add(objects, giver)

    def with_more(self, objects: Iterable[Any], giver: str) -> Resources:
        """These and others.

        Raises:
            TypeError: as the class.
            ValueError: as the class.
        """
        more = Resources(self._objects, giver)
        more._add(objects, giver)
        return more

    def _add(self, objects: Iterable[Any], giver: str) -> None:
        for one in objects:
            if isinstance(one, type):
                raise TypeError(f"{giver}: found the class {one.__qualname__}; expected an object of it")
            if any(type(other) is type(one) for other in self._objects):
                raise ValueError(
                    f"{giver}: there are two objects of the type {place(type(one))}, and activities ask by type. Give "
                    "one of them a class of its own (`class Reports(AsyncClient): ...`), or give an object that holds "
                    "both."
                )
            self._objects.append(one)

    def get(self, kind: type[T], asking: str) -> T:
        """The object of this type, or the only one of a type that is derived from it.

        Args:
            asking: who asks, for messages.

        Raises:
            TypeError: `kind` is no type that objects can be asked for.
            PgflowError: there is none, or there are several.
        """
        try:
            found: T = self._found[kind]
        except (KeyError, TypeError):
            found = self._search(kind, asking)
            self._found[kind] = found
        return found

    def _search(self, kind: type[T], asking: str) -> T:
        if not isinstance(kind, type):
            raise TypeError(f"{asking} asks for the resource {kind!r:.200}; expected a class")
        for one in self._objects:
            if type(one) is kind:
                return one
        try:
            matching = [one for one in self._objects if isinstance(one, kind)]
        except TypeError as error:  # a protocol that says nothing at run time
            raise TypeError(
                f"{asking} asks for the resource {place(kind)}, by which objects cannot be told: {error}"
            ) from None
        if len(matching) == 1:
            return matching[0]
        there = ", ".join(sorted(place(type(one)) for one in matching or self._objects)) or "none at all"
        if matching:
            raise PgflowError(
                f"{asking} asks for the resource {place(kind)}, and several are of that type: {there}. Ask for one of "
                "them."
            )
        raise PgflowError(
            f"{asking} asks for the resource {place(kind)}; the resources of this process are: {there}. Give it to the "
            "worker by Worker(lifespan=...) or Worker(objects=[...]), to `pgflow worker` by --lifespan MODULE:NAME, to "
            "pgflow.testing.run by resources=[...]."
        )


NO_RESOURCES = Resources((), "")
