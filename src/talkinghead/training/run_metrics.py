"""The last metrics of a run, in `metrics.json` in its folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from talkinghead.errors import CheckpointError
from talkinghead.media.atomic_file import atomic_path

METRICS_NAME = "metrics.json"


def save_metrics(run_dir: Path, metrics: Mapping[str, float]) -> None:
    """Write the metrics of a finished run."""
    with atomic_path(run_dir / METRICS_NAME) as temporary:
        temporary.write_text(json.dumps(dict(metrics), indent=2), encoding="utf-8")


def load_metrics(run_dir: Path) -> dict[str, float]:
    """Return the metrics of a run that was finished before; empty if there are none.

    Raises:
        CheckpointError: The file is damaged.
    """
    path = run_dir / METRICS_NAME
    try:
        return {name: float(value) for name, value in json.loads(path.read_bytes()).items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise CheckpointError(
            f"{path} cannot be read ({error}): remove it, and train the run again for its metrics"
        ) from error
