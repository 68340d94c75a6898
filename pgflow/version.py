"""The version of this code, as its distribution says it."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

try:
    VERSION = version("pgflow-engine")
except PackageNotFoundError:  # a checkout that is not installed
    VERSION = "0+checkout"
