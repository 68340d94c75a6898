"""Goes on with the random programs of a file in a process of its own, where hashes of texts and all addresses differ.

python -m tests.execution.elsewhere FILE
"""

from __future__ import annotations

import pickle
import random
import sys
from pathlib import Path
from typing import Any

from tests.execution.lives import Lives
from tests.execution.program_trees import Node, program_of


def live_a_while(lives: Lives, rng: random.Random) -> None:
    """A few lives, each killed at any place."""
    for _ in range(rng.randrange(4)):
        if lives.ended:
            return
        life = lives.begin()
        for _ in range(rng.randrange(12)):
            if not life.ended:
                lives.take(life, lives.pick(rng, life.choices()))
        if not life.ended:
            life.crash()


def packed(lives: Lives, tree: Node, seed: int) -> bytes:
    """What is durable, and what was seen so far."""
    world = lives.world.copied()
    world.workflow = None  # type: ignore[assignment]  # made anew
    return pickle.dumps((type(lives), tree, seed, world, lives.longest))


def unpacked(data: bytes) -> tuple[Lives, random.Random, str]:
    """The same lives in this process."""
    kind: type[Lives]
    tree: Any
    kind, tree, seed, world, longest = pickle.loads(data)
    lives = kind(program_of(tree))
    world.workflow = lives.world.workflow
    lives.world, lives.longest = world, longest
    return lives, random.Random(seed), repr(tree)


def main(file: str) -> None:
    """To the end of each program, which a replay then gives again."""
    for data in pickle.loads(Path(file).read_bytes()):
        lives, rng, told = unpacked(data)
        try:
            lives.live(rng, 0.2)
            lives.check_end()
        except AssertionError as error:
            error.add_note(told)
            raise


if __name__ == "__main__":
    main(sys.argv[1])
