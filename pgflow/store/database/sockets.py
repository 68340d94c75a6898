"""Ends connections that another thread or task is using."""

from __future__ import annotations

import contextlib
import os
import socket

import psycopg

from pgflow.store.database.pooler import Connection


def hang_up(connection: Connection) -> None:
    """End a connection that another thread may be waiting on: that thread wakes because the other end is gone.

    One that is closed already is left alone.
    """
    with contextlib.suppress(OSError, psycopg.Error):
        with socket.socket(fileno=os.dup(connection.fileno())) as wire:
            wire.shutdown(socket.SHUT_RDWR)
