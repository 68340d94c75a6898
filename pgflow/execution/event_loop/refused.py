"""What asyncio offers and a workflow's code may not use, with the durable step to use instead."""

from __future__ import annotations

INSTEAD = {
    "call_later": "asyncio's timers are not durable: use `await ctx.sleep(...)` instead of `asyncio.sleep(...)`, and "
    "`async with ctx.timeout(...)` instead of `asyncio.timeout(...)` or `asyncio.wait_for(...)`",
    "call_at": "asyncio's timers are not durable: use `await ctx.sleep(...)` instead of `asyncio.sleep(...)`, and "
    "`async with ctx.timeout(...)` instead of `asyncio.timeout(...)` or `asyncio.wait_for(...)`",
    "run_in_executor": "a workflow starts no threads: put the call in a plain `def` activity, which runs in one",
    "call_soon_threadsafe": "a workflow is not called from threads: put the work in an activity, or send a signal",
    "subprocess_exec": "a workflow starts no processes: do it in an activity",
    "subprocess_shell": "a workflow starts no processes: do it in an activity",
}
"""What to use instead, for methods that have a counterpart."""


REFUSED = (
    "call_later",
    "call_at",
    "run_in_executor",
    "call_soon_threadsafe",
    "subprocess_exec",
    "subprocess_shell",
    "create_connection",
    "create_server",
    "create_unix_connection",
    "create_unix_server",
    "create_datagram_endpoint",
    "connect_accepted_socket",
    "connect_read_pipe",
    "connect_write_pipe",
    "sendfile",
    "start_tls",
    "getaddrinfo",
    "getnameinfo",
    "sock_recv",
    "sock_recv_into",
    "sock_recvfrom",
    "sock_sendall",
    "sock_sendto",
    "sock_connect",
    "sock_accept",
    "sock_sendfile",
    "add_reader",
    "add_writer",
    "remove_reader",
    "remove_writer",
    "add_signal_handler",
    "remove_signal_handler",
    "run_forever",
    "run_until_complete",
    "set_default_executor",
    "shutdown_default_executor",
    "stop",
    "close",
)
"""Methods of an event loop that a run's loop refuses."""
