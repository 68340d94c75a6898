"""One attempt of a transactional activity: its own statements and its result become durable together, or not at all.

    begin -> the activity's code -> its run's turn to write -> commit, with the result's row
                |                                                 |
                '-> failed, too late, cancelled: rollback         '-> refused: rollback; another attempt, or lease lost

The turn comes when all that its run has handed over before is durable. From there on the attempt cannot be cancelled.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from pgflow.execution.activities.activity_call import ActivityCall
from pgflow.model.writes import Write
from pgflow.ports import TransactionPort, TransactionsPort


async def perform(
    call: ActivityCall,
    transactions: TransactionsPort,
    execute: Callable[[ActivityCall], Awaitable[str]],
) -> None:
    """Run an attempt in a transaction of its own and commit its result; calls the write back with the outcome.

    Args:
        execute: runs the activity's code and returns the encoded output.

    Raises:
        BaseException: whatever the code raised, or what kept it from its turn; everything is rolled back.
    """
    activity = call.activity
    # As often as it takes: an unreachable database costs the activity no attempt.
    transaction = await transactions.begin(blocking=not activity.is_async, timeout=activity.timeout)
    try:
        call.context.connect(transaction.connection)
        output = await execute(call)
        write = await _turn(call, output)
        try:
            at = await transaction.commit(write)
        except BaseException as error:
            await transaction.rollback()
            write.on_refused(write, error)
        else:
            write.on_commit(write, at)
    finally:
        await _leave(call, transaction)


async def _turn(call: ActivityCall, output: str) -> Write:
    turn: asyncio.Future[Write] = asyncio.get_running_loop().create_future()
    call.caller.attempt_ready(output, turn.set_result)
    return await turn


async def _leave(call: ActivityCall, transaction: TransactionPort) -> None:
    """Give the connection back; what has not been committed is rolled back."""
    if call.work is not None and not call.work.done():
        await transaction.abort(call.work)  # a thread that nobody waits for any more
    else:
        await transaction.close()
