"""For the documentation site: the `Example:` of a docstring is shown as code (an extension of griffe, named in
`zensical.toml`).
"""

from __future__ import annotations

import re
from typing import Any

import griffe

_EXAMPLE = re.compile(r"^(Example|Examples):\n((?:[ ]{4}.*\n?|\n)+)", re.MULTILINE)


class Examples(griffe.Extension):  # type: ignore[misc, unused-ignore]
    """Puts what stands under `Example:` into a fence."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Called for each module, class, function and attribute that was found."""
        if obj.docstring is not None:
            obj.docstring.value = _EXAMPLE.sub(_fenced, obj.docstring.value)


def _fenced(found: re.Match[str]) -> str:
    code = found[2].rstrip("\n")
    return f"Example:\n    ```python\n{code}\n    ```\n"
