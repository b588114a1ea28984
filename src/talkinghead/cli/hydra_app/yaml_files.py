"""Read YAML files, several times as fast as `yaml.safe_load` where libyaml is installed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def parse_mapping(text: str) -> dict[str, Any]:
    """Return the mapping in a YAML text, empty for a text without keys."""
    return yaml.load(text, _LOADER) or {}  # noqa: S506 - a safe loader


def read_mapping(path: Path) -> dict[str, Any]:
    """Return the mapping in a YAML file, empty for a missing file."""
    return parse_mapping(path.read_text(encoding="utf-8")) if path.is_file() else {}
