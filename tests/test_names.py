"""One rule says what can be a name in the database, whatever it names."""

from typing import Any

import pytest

from pgflow.definitions.calls import workflow_name
from pgflow.definitions.functions import checked_name, is_name
from pgflow.definitions.options import actor_of, check_queue

GOOD = ["a", "orders", "x" * 200, "größe", "two words"]
BAD = ["", "x" * 201, "a\nb", "a\0b", "\ud800"]


@pytest.mark.parametrize("name", GOOD)
def test_a_good_name_is_one_for_everything(name: str) -> None:
    assert is_name(name)
    assert checked_name(name, "workflow") == workflow_name(name) == actor_of(name) == name
    check_queue(name)


@pytest.mark.parametrize("name", BAD)
def test_a_bad_name_is_refused_for_everything(name: str) -> None:
    assert not is_name(name)
    refusals: list[Any] = [lambda bad: checked_name(bad, "workflow"), workflow_name, actor_of, check_queue]
    for refuse in refusals:
        with pytest.raises(ValueError, match="1 to 200 printable characters"):
            refuse(name)
