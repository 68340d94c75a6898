"""One statement for each thing that a client or an operator asks, as plain data: what to send, how to read the answer.

They have no states. A `Query` (`pgflow/store/database/query.py`) is executed by the asynchronous and the synchronous
client, by a worker's lines, and on a connection of the caller's.
"""
