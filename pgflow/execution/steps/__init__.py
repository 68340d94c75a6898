"""One file for each kind of step: what it records, and what it does when history holds no result of it.

The rows of all kinds take the same states:

    (no row) --> pending --> completed    it has a result
        |            |-----> failed       it has an error, which the code gets
        |            |-----> cancelled    the workflow, a deadline or its own code cancelled it
        |            '-----> abandoned    its body ended without it
        '--> any of these at once: a step that ends quickly is written when it has ended

A pending row is written when something has to be known before the end (a deadline, a failed attempt, a heartbeat, a
loop's progress), or when a later step of the same scope is written: histories have no holes.

To add a kind: a constant `KIND_...` in `pgflow/history/events.py`; a subclass of `Step` here with `kind`, `start` (what
it does) and `result` (what the code gets from a recorded end); `due` if it parks with a moment, `stop` if it has work
in flight; a method of `WorkflowContext` that checks its arguments and makes it. What it wants committed goes through
`Run.finish`, what it does to other workflows through `crossings`. Then a page in `docs/` that shows it, and programs
with it in the tests of replay.
"""
