"""A scrape as Prometheus makes it, and how to look into one."""

from __future__ import annotations

import asyncio
import random
import socket
import urllib.error
import urllib.request
from collections.abc import Iterable
from contextlib import suppress
from typing import NamedTuple

from prometheus_client.parser import text_string_to_metric_families


class Series(NamedTuple):
    """One line of a scrape."""

    name: str
    labels: dict[str, str]
    value: float


class Scrape:
    """What one scrape has brought."""

    def __init__(self, series: Iterable[Series]) -> None:
        self.series = list(series)

    @classmethod
    def of(cls, text: str) -> Scrape:
        """From the text of `/metrics`."""
        return cls(
            Series(sample.name, dict(sample.labels), sample.value)
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        )

    def all(self, name: str, **labels: str) -> list[Series]:
        """The series of that name, and with these labels."""
        return [one for one in self.series if one.name == name and labels.items() <= one.labels.items()]

    def sum(self, name: str, **labels: str) -> float:
        """What they come to; 0 if there are none."""
        return sum(one.value for one in self.all(name, **labels))


def free_port() -> int:
    """A port that nobody had a moment ago, and that the system gives to no client: else one of those that wait for the
    server could get it, and be connected with itself.
    """
    while True:
        port = random.randrange(10_000, 30_000)
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


def get_blocking(port: int, path: str) -> tuple[int, str]:
    """The status and the text of an answer."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=60) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as refused:
        with refused:
            return refused.code, refused.read().decode()


async def get(port: int, path: str) -> tuple[int, str]:
    """The same without holding up the event loop."""
    return await asyncio.to_thread(get_blocking, port, path)


async def scrape(port: int) -> Scrape:
    """What `/metrics` has now."""
    code, text = await get(port, "/metrics")
    assert code == 200, text
    return Scrape.of(text)


async def status(port: int, path: str) -> int:
    """The status of an answer; 0: nobody listens."""
    try:
        return (await get(port, path))[0]
    except (urllib.error.URLError, ConnectionError):
        return 0
