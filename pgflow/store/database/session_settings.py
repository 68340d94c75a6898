"""What the engine's sessions are set to, whatever environment, service file, role or database say.

The settings are made by a statement and not by options at the start of the connection: variables such as PGTZ override
those, they would replace PGOPTIONS (which keeps its effect this way: `-c role=app`), and poolers refuse them. A session
that may be somebody else's a moment later keeps nothing: there each transaction begins with them.
"""

from __future__ import annotations

from collections.abc import Mapping

HELD = {
    # What values look like.
    "timezone": "UTC",
    "datestyle": "ISO",
    "intervalstyle": "postgres",
    "bytea_output": "hex",
    "extra_float_digits": "1",
    # What statements mean.
    "search_path": "pg_catalog, pg_temp",
    "array_nulls": "on",
    "standard_conforming_strings": "on",
    "synchronous_commit": "on",
    "transform_null_equals": "off",
    "gin_fuzzy_search_limit": "0",
    # How statements are planned: every one reaches its rows by an index. A plan that was made while the tables were
    # empty would otherwise scan them, and in a serializable transaction lock them whole.
    "jit": "off",
    "enable_seqscan": "off",
    "enable_indexscan": "on",
    "enable_bitmapscan": "on",
    "plan_cache_mode": "force_generic_plan",
}
"""What holds in every statement of the engine."""

KEPT = {
    "default_transaction_isolation": "read committed",
    "default_transaction_read_only": "off",
    "default_transaction_deferrable": "off",
    "lock_timeout": "0",
    "idle_session_timeout": "0",
}
"""What also holds in a session of our own; a pooler's session is refused where these would change what a transaction
sees.
"""

DURABILITY = "synchronous_commit"
"""The setting by which a crash may lose an acknowledged commit; it is changed only where it is off."""

TRANSACTION_TIMEOUT = 170000
"""The first server version that can limit how long a transaction takes."""


def session(timeout: int, server: int) -> dict[str, str]:
    """The settings of a session of the engine's own.

    Args:
        timeout: Milliseconds that a statement may take, and that may pass between two of one transaction.
        server: The server's version, such as 150004.
    """
    limit = str(timeout)
    made = {"statement_timeout": limit, "idle_in_transaction_session_timeout": limit, **HELD, **KEPT}
    if server >= TRANSACTION_TIMEOUT:
        made["transaction_timeout"] = "0"
    return made


def setting(settings: Mapping[str, str], *, local: str = "true") -> bytes:
    """The items of a SELECT that make settings.

    Args:
        settings: Names and values, none of them from outside.
        local: SQL that says whether they are for the transaction alone.
    """
    return ", ".join(
        f"set_config('{name}', {_value(name, value)}, {local})" for name, value in settings.items()
    ).encode()


def _value(name: str, value: str) -> str:
    if name != DURABILITY:
        return f"'{value}'"
    # Stricter and laxer ways to wait for standbys are the operator's choice.
    return f"CASE current_setting('{name}') WHEN 'off' THEN '{value}' ELSE current_setting('{name}') END"
