"""The version numbers by which code and schema recognise each other."""

from __future__ import annotations

SCHEMA_VERSION = 29
"""The version of the schema that this code was written for; each migration that changes something adds one."""

NEEDS = 27
"""The oldest version of the schema that this code can work on."""
