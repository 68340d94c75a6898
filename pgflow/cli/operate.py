"""`pgflow workflow dispatch | signal | cancel | pause | resume | retry | rewind | terminate | update | wake | fork`:
changes workflows, as a client does.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any
from uuid import UUID

import click

from pgflow.cli import render
from pgflow.cli.completion import QUEUE, WORKFLOW_ID, WORKFLOW_NAME
from pgflow.cli.database_options import audit_options, database_options, readable_errors
from pgflow.cli.known import check_known
from pgflow.cli.operate_many import bulk_options, is_one, operate_many
from pgflow.client.filters import CHILDREN
from pgflow.client.sync.client import SyncClient
from pgflow.decorators import signal as declare_signal
from pgflow.model.info import Rewound

_id = click.argument("id", type=WORKFLOW_ID)
_one_or_many = click.argument("id", type=WORKFLOW_ID, required=False)


@contextmanager
def _client(dsn: str, schema: str, actor: str | None = None) -> Iterator[SyncClient]:
    with readable_errors(), SyncClient(dsn, schema, connections=1, actor=actor) as client:
        yield client


@click.command()
@click.argument("name", type=WORKFLOW_NAME)
@click.argument("input", default="{}")
@click.option("--id", type=click.UUID, help="Your own id for it; if it was used before, nothing is started.")
@click.option("--tags", default="{}", metavar="JSON", help="A flat JSON object by which the workflow can be found.")
@click.option(
    "--unique",
    is_flag=True,
    help="At most one live workflow, of those started with --unique, has this name and exactly these tags.",
)
@click.option("--priority", default=0, show_default=True, help="Higher goes first.")
@click.option("--queue", type=QUEUE, default="default", show_default=True, help="The queue that workers serve.")
@click.option("--unchecked", is_flag=True, help="Start it whatever the live workers know of its name and arguments.")
@database_options
def dispatch(
    name: str,
    input: str,
    id: UUID | None,
    tags: str,
    unique: bool,
    priority: int,
    queue: str,
    unchecked: bool,
    dsn: str,
    schema: str,
) -> None:
    """Start the workflow NAME with INPUT, a JSON object of its arguments, and print its id.

    A name that no live worker knows is refused, and so are arguments that do not fit, by what the workers of the newest
    build say of them. Where no worker runs nothing is checked.

    Example: pgflow workflow dispatch checkout '{"order": 7}' --tags '{"customer": 42}'
    """
    arguments, labels = _object(input, "INPUT"), _object(tags, "--tags")
    reserved = {"id", "tags", "unique", "run_at", "priority", "queue", "connection"} & arguments.keys()
    with _client(dsn, schema) as client:
        if reserved:
            raise ValueError(
                f"INPUT names {', '.join(sorted(reserved))}, which are options here; start it by SQL: "
                "pgflow.dispatch(...)"
            )
        if not unchecked:
            check_known(client, name, arguments, queue)
        handle = client.dispatch(name, id=id, tags=labels, unique=unique, priority=priority, queue=queue, **arguments)
    click.echo(handle.id)


@click.command()
@_id
@click.argument("name")
@click.argument("body", default="{}")
@database_options
def signal(id: UUID, name: str, body: str, dsn: str, schema: str) -> None:
    """Send the workflow ID a signal: its NAME, and its BODY, a JSON object of its fields.

    Example: pgflow workflow signal 0198c0de-0000-7000-8000-000000000000 approved '{"by": "eva"}'
    """
    with _client(dsn, schema) as client:
        click.echo(client.signal(_packet(name, _object(body, "BODY")), to=id))


@click.command()
@_one_or_many
@bulk_options
@database_options
@audit_options
def cancel(id: UUID | None, dsn: str, schema: str, actor: str | None, reason: str | None, **asked: Any) -> None:
    """Cancel the workflow ID, or all that match the filters; their code may still compensate.

    Example: pgflow workflow cancel --name newsletter --tag campaign=7 --reason "wrong price"
    """
    single = is_one(id, asked)
    with _client(dsn, schema, actor) as client:
        if not single:
            operate_many(client.cancel_many, "cancel", reason, **asked)
            return
        assert id is not None
        _say(client.cancel(id, reason=reason), "it will be cancelled", "it has ended already")


@click.command()
@_one_or_many
@bulk_options
@database_options
@audit_options
def pause(id: UUID | None, dsn: str, schema: str, actor: str | None, reason: str | None, **asked: Any) -> None:
    """Pause the workflow ID, or all that match the filters: no worker goes on with them until they are resumed.

    Example: pgflow workflow pause --queue mail --reason "the mail server is down"
    """
    single = is_one(id, asked)
    with _client(dsn, schema, actor) as client:
        if not single:
            operate_many(client.pause_many, "pause", reason, **asked)
            return
        assert id is not None
        done = client.pause(id, reason=reason)
        _say(done, "it is paused, or will be once its running activities have ended", "it has ended already")


@click.command()
@_one_or_many
@bulk_options
@database_options
@audit_options
def resume(id: UUID | None, dsn: str, schema: str, actor: str | None, reason: str | None, **asked: Any) -> None:
    """Resume the paused workflow ID, or all paused ones that match the filters.

    Example: pgflow workflow resume --queue mail
    """
    single = is_one(id, asked)
    with _client(dsn, schema, actor) as client:
        if not single:
            operate_many(client.resume_many, "resume", reason, **asked)
            return
        assert id is not None
        _say(client.resume(id, reason=reason), "it goes on", "it is not paused")


@click.command()
@_one_or_many
@bulk_options
@database_options
@audit_options
def retry(id: UUID | None, dsn: str, schema: str, actor: str | None, reason: str | None, **asked: Any) -> None:
    """Run the failed workflow ID again from its history, or all failed ones that match the filters.

    Example: pgflow workflow retry --error-type ConnectionError --ended-after 2h --reason "the bank is back"
    """
    single = is_one(id, asked)
    with _client(dsn, schema, actor) as client:
        if not single:
            operate_many(client.retry_many, "retry", reason, **asked)
            return
        assert id is not None
        client.retry(id, reason=reason)
        click.echo("it goes on")


@click.command()
@_one_or_many
@bulk_options
@database_options
@audit_options
def terminate(id: UUID | None, dsn: str, schema: str, actor: str | None, reason: str | None, **asked: Any) -> None:
    """End the workflow ID at once, or all that match the filters, without a worker and without their code.

    Nothing is compensated: cancel lets the code do that. For code that is gone, or that swallows cancels.

    Example: pgflow workflow terminate 0198c0de-0000-7000-8000-000000000000 --reason "its code was removed"
    """
    single = is_one(id, asked)
    with _client(dsn, schema, actor) as client:
        if not single:
            operate_many(client.terminate_many, "terminate", reason, **asked)
            return
        assert id is not None
        _say(client.terminate(id, reason=reason), "it has been ended", "it has ended already")


@click.command()
@_id
@click.option("--queue", help="The queue that workers serve.")
@click.option("--priority", type=int, help="Higher goes first.")
@click.option(
    "--run-at", metavar="TIME", help="Not before this moment, in ISO 8601 with a zone; of one that never ran."
)
@database_options
@audit_options
def update(
    id: UUID,
    queue: str | None,
    priority: int | None,
    run_at: str | None,
    dsn: str,
    schema: str,
    actor: str | None,
    reason: str | None,
) -> None:
    """Change the queue, the priority or the moment of the workflow ID, which must not run; the rest stays.

    Example: pgflow workflow update 0198c0de-0000-7000-8000-000000000000 --queue bulk --reason "makes way"
    """
    try:
        moment = None if run_at is None else datetime.fromisoformat(run_at)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--run-at") from error
    with _client(dsn, schema, actor) as client:
        done = client.update(id, queue=queue, priority=priority, run_at=moment, reason=reason)
        _say(done, "it is changed", "it has all that already")


@click.command()
@_id
@database_options
@audit_options
def wake(id: UUID, dsn: str, schema: str, actor: str | None, reason: str | None) -> None:
    """Let the workflow ID, which sleeps, look again now; activities that wait for their next attempt are tried at once.

    Its own sleeps, deadlines and listens go on as they were.

    Example: pgflow workflow wake 0198c0de-0000-7000-8000-000000000000 --reason "the bank is back"
    """
    with _client(dsn, schema, actor) as client:
        _say(client.wake(id, reason=reason), "it looks again", "it does not sleep")


@click.command()
@_id
@click.option("--before", required=True, metavar="LOCATION", help='The first step to run again, such as "{2, 5, 1}".')
@click.option("--queue", help="The queue of the new workflow; by default that of workflow ID, if it is still known.")
@database_options
@audit_options
def fork(
    id: UUID, before: str, queue: str | None, dsn: str, schema: str, actor: str | None, reason: str | None
) -> None:
    """Start a new workflow from the history of the workflow ID before a step, and print its id.

    Example: pgflow workflow fork 0198c0de-0000-7000-8000-000000000000 --before '{2, 5}'
    """
    with _client(dsn, schema, actor) as client:
        click.echo(client.fork(id, before, queue=queue, reason=reason).id)


@click.command()
@_id
@click.option("--before", required=True, metavar="LOCATION", help='The first step to run again, such as "{2, 5, 1}".')
@click.option(
    "--children",
    type=click.Choice(CHILDREN),
    default="leave",
    show_default=True,
    help="What becomes of children that were started there and still run.",
)
@click.option("--dry-run", is_flag=True, help="Do nothing, say what would be undone.")
@click.option("--yes", is_flag=True, help="Do not ask before it is done.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document, for programs.")
@database_options
@audit_options
def rewind(
    id: UUID,
    before: str,
    children: str,
    dry_run: bool,
    yes: bool,
    as_json: bool,
    dsn: str,
    schema: str,
    actor: str | None,
    reason: str | None,
) -> None:
    """Let the workflow ID, paused or failed or ended, run again under its own id from before a step.

    Example: pgflow workflow rewind 0198c0de-0000-7000-8000-000000000000 --before "{3}" --children cancel --yes
    """
    with _client(dsn, schema, actor) as client:
        if not (yes or dry_run):
            would = client.rewind(id, before, children=children, reason=reason, dry_run=True)
            click.confirm(f"{_undone(would, children, 'would be')} Rewind it?", abort=True, err=True)
        done = client.rewind(id, before, children=children, reason=reason, dry_run=dry_run)
    click.echo(render.document(done) if as_json else _undone(done, children, "would be" if dry_run else "were"))


COMMANDS = (dispatch, signal, cancel, pause, resume, retry, rewind, terminate, update, wake, fork)


def _undone(found: Rewound, children: str, verb: str) -> str:
    said = [f"Rewind {found.number}: {found.steps} steps {verb} undone, {found.signals} signals {verb} returned."]
    if found.children:
        what = "asked to cancel" if children == "cancel" else "left running"
        said.append(f"Children {what}: {', '.join(map(str, found.children))}.")
    if found.recorded_by:
        said.append(f"Keep the output that they have recorded: {', '.join(map(str, found.recorded_by))}.")
    return " ".join(said)


def _object(text: str, what: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError as error:
        raise click.BadParameter(f"{text!r} is not JSON: {error}", param_hint=what) from error
    if not isinstance(found, dict):
        raise click.BadParameter(f"{text!r}: expected a JSON object", param_hint=what)
    return found


def _packet(name: str, fields: dict[str, Any]) -> Any:
    """A signal of a class made here: the command knows the signal's name and fields, not its class."""
    from pydantic import ConfigDict, create_model

    kind = create_model("Packet", __config__=ConfigDict(extra="allow"))
    return declare_signal(name=name)(kind)(**fields)


def _say(done: bool, yes: str, no: str) -> None:
    click.echo(yes if done else no)
    if not done:
        raise SystemExit(1)
