"""What is wrong with the database: the part of the client that examines it."""

from __future__ import annotations

import time

import psycopg

from pgflow.client.core import HasCore
from pgflow.model.diagnosis import LEVELS, Diagnosis, Finding
from pgflow.store.doctor import CHECKS, CheckContext
from pgflow.store.doctor.check import not_made
from pgflow.store.doctor.check_server import schema as schema_check


class Examination(HasCore):
    """The method of a client that examines the database."""

    async def doctor(self) -> Diagnosis:
        """Look for what is wrong: with the schema, the server, vacuum, the workers, the work and the histories.

        It only reads, works on a hot standby, and asks nothing that takes long however much there is. A check that
        cannot be made (for want of a right, say) is a finding, and the others are made.

        Returns:
            What was found, the worst first; nothing, if all is well.

        Raises:
            psycopg.OperationalError: the database cannot be reached.

        Example:
            diagnosis = await client.doctor()
            for finding in diagnosis.findings:
                print(finding.level, finding.found, finding.advice)
        """
        connections, schema = self._core.connections, self._core.schema
        async with connections.examining() as session:
            state, info = await session.state()
            findings = schema_check(schema, state, info)
            made = ["schema"]
            if info is not None and all(finding.level != "error" for finding in findings):
                asked = CheckContext(schema, time.time, session.is_shared)
                for check in CHECKS:
                    if info[0] < check.since:
                        continue
                    made.append(check.name)
                    try:
                        found = await session.ask(check.query(asked))
                    except psycopg.Error as error:
                        if session.is_lost(error):
                            raise
                        found = [not_made(check.name, error)]
                    findings += found
        return Diagnosis(sorted(findings, key=_urgency, reverse=True), made)


def _urgency(finding: Finding) -> int:
    return LEVELS.index(finding.level)
