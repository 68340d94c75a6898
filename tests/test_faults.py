"""Fault points: passed without a hook, held up or failed with one."""

from __future__ import annotations

import asyncio

import pytest

from pgflow import faults


def test_a_point_without_a_hook_is_passed() -> None:
    faults.hit("nowhere")
    asyncio.run(faults.reach("nowhere"))


def test_a_hook_runs_only_inside_its_block() -> None:
    reached: list[str] = []
    with faults.install({"here": lambda: reached.append("here")}):
        faults.hit("here")
        asyncio.run(faults.reach("here"))
    faults.hit("here")
    assert reached == ["here", "here"]


def test_a_hook_can_fail_the_code_that_passes_it() -> None:
    def fail() -> None:
        raise RuntimeError("held")

    with faults.install({"here": fail}), pytest.raises(RuntimeError, match="held"):
        faults.hit("here")
