"""Griffe extension that renders "Example:" sections of docstrings as code."""

from __future__ import annotations

import re
from typing import Any

import griffe

_HEADING = re.compile(r"^( *)Example:$", re.MULTILINE)


class ExampleSections(griffe.Extension):
    """Rename "Example:" to "Examples:", the only spelling that Griffe parses as code."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rename the section "Example:" of an object's docstring."""
        if obj.docstring is not None:
            obj.docstring.value = _HEADING.sub(r"\1Examples:", obj.docstring.value)
