"""What `pgflow doctor` finds, as plain values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "info", "warning", "error"]

LEVELS: tuple[Level, ...] = ("ok", "info", "warning", "error")
"""The better ones first. A warning or an error needs a person."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is not as it should be.

    Attributes:
        check: the check that has found it.
        level: "info" for something to know of, "warning" for a person soon, "error" for a person now.
        expected: what a healthy database has.
        found: what this one has.
        where: ids of what it is about, some of them if there are many.
        advice: what to do, with the command if there is one.
    """

    check: str
    level: Level
    expected: str
    found: str
    advice: str
    where: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What the checks have found.

    Attributes:
        findings: the worst first.
        checks: the names of the checks that were made.
    """

    findings: list[Finding]
    checks: list[str]

    @property
    def level(self) -> Level:
        """The worst level of all findings; "ok" when there are none."""
        return max((finding.level for finding in self.findings), key=LEVELS.index, default="ok")

    @property
    def needs_person(self) -> bool:
        """Whether there is a warning or an error."""
        return self.level in ("warning", "error")
