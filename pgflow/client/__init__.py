"""The clients: start workflows, wait for their output, look at them, operate them, and read what they publish.

    created --entered: the schema is checked--> open --calls, each within `call_timeout`--> open --left--> closed
                                                  '-- a connection breaks: the call is tried again where that is safe

`client.py` is what users hold; `operations.py` and `dead_letters.py` are parts of it, `handle.py` and `subscription.py`
what its calls give. They share `core.py`. `sync/` is generated from these by `scripts/`, and a check in `make lint`
compares them.
"""
