"""Questions how workflows have ended: one that may wait holds up no other."""

from __future__ import annotations

from collections.abc import Mapping
from uuid import UUID

from pgflow.model.commands import Standing
from pgflow.model.writes import Inquiry
from pgflow.store.exchange.inquiries import Inquiries
from tests.store.scene import Scene
from tests.waiting import until


async def test_a_question_that_waits(scene: Scene) -> None:
    ended = scene.run()
    scene.do("UPDATE workflows SET status = 'completed', output = '1', completed_at = now() WHERE id = %s", ended)
    answers: list[str] = []

    def noting(name: str) -> Inquiry:
        def answered(inquiry: Inquiry, found: Mapping[UUID, Standing | None]) -> None:
            assert set(found) == {ended}
            answers.append(name)

        return Inquiry([ended], answered)

    inquiries = Inquiries(scene.database)
    inquiries.start()
    never, soon, now = noting("never"), noting("soon"), noting("now")
    never.wait, soon.wait = 3600.0, 0.001
    for inquiry in (never, soon, now):
        inquiries.ask(inquiry)
    await until(lambda: len(answers) == 2, "the answers")
    assert sorted(answers) == ["now", "soon"]
    await inquiries.close()
