"""A run in memory: its scopes, its steps, and the order in which results reach the code.

Everything here serves one promise: live and on replay, the code is given the same results in the same order. So a step
has two coordinates. Its location says where it was called; it is fixed by the call. Its place (`seq`) says when it
ended; results are delivered strictly by it.

A step, from the call to the code that awaits it:

    called -- location fixed --+-- history holds no end of it --> awaited: started --> finished: its place is taken,
                               |                                  its row is gathered --> written --> committed --+
                               '-- history holds its result ----> awaited: waits for its place ------------------+
                                                                                     delivered, in the order of `seq`
    left over when its body ends --> abandoned;     cancelled by the workflow or its code --> cancelled

A pump (`run.py`) drains the run's event loop, delivers one result, and drains again, until the code is at rest. Only
then are rows handed over and attempts begun, so that code which diverges later in the same pump has done nothing.

    run.py           the run: pumping, resting, ending
    step_services.py what steps ask of their run; it is a part of the run
    interfaces.py    what steps, bodies and runs may ask of one another; host.py: what a run asks of its worker
    scope.py         a body of code over its stretch of history: it fixes locations and leaves no holes
    step.py          what all kinds of steps have in common
    result_order.py  which result is next
    held_back.py     recorded results that wait while the code executes an insertion before them
    write_buffer.py  what is gathered, in flight and committed; what commits apart from the journal takes its turn there
    waits.py         parked steps: moments, signals, children; whether the run can sleep
    mailbox.py       signals that came and were not taken; `arrivals.py` puts them there
    crossings.py     what the run does to other workflows, and asks of them
    cancellation.py, abandonment.py, unawaited.py    how steps end without a result
    ending.py, failure_origin.py, blame.py           how the run ends, and what a retry would run again
"""
