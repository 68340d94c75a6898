"""One file for each kind of step: what it records, and what it does when history holds no result of it.

The rows of all kinds take the same states:

    (no row) --> pending --> completed    it has a result
        |            |-----> failed       it has an error, which the code gets
        |            |-----> cancelled    the workflow, a deadline or its own code cancelled it
        |            '-----> abandoned    its body ended without it
        '--> any of these at once: a step that ends quickly is written when it has ended

A pending row is written when something has to be known before the end (a deadline, a failed attempt, a heartbeat, a
loop's progress), or when a later step of the same scope is written: histories have no holes.

To add a kind:

    1. a constant and its place in the set of kinds, in `pgflow/history/events.py`
    2. a subclass of `Step` here: `kind`; `start`, what it does; `result`, what the code gets from a recorded end; `due`
       if it parks with a moment; `stop` if it has work in flight
    3. a method of `WorkflowContext` that checks its arguments and makes it
    4. what `retry` and `fork` do with a row of it, where that is not what they do with others (functions of the schema)
    5. a page in `docs/` that shows it, and programs with it in the tests of replay

What a step wants committed goes through `Run.finish`; what it does to other workflows is a crossing.
"""
