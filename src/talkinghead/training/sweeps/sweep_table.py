"""Table of the runs of a sweep.

This module imports no large packages, because Hydra imports it before every command.
"""

from __future__ import annotations

import csv
import json
import logging
import math
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from talkinghead.media.atomic_file import atomic_path

logger = logging.getLogger(__name__)

TABLE_NAME = "sweep.csv"


class SweepTable(Callback):
    """A Hydra callback that writes `sweep.csv` to the folder of a sweep when a run ends.

    The table has one row per run; the best run is the first. The columns are `run` (the name of the
    folder), `state` ("finished"; "stopped" by the pruner; "unfinished" if running or failed), the
    objective, the overrides of the run and the other metrics.
    """

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        """Update the table after a run of a sweep."""
        if config.hydra.mode == RunMode.MULTIRUN:
            _write(config)

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Write the final table."""
        _write(config)
        logger.info("%s lists the runs, best first", Path(config.hydra.sweep.dir) / TABLE_NAME)


def write_table(sweep_dir: Path, metric: str, direction: str) -> list[dict[str, Any]]:
    """Write the table of the runs in the subfolders of a folder, and return the rows."""
    folders = [path.parents[1] for path in sweep_dir.glob("*/.hydra/overrides.yaml")]
    rows = [_read_run(folder, metric) for folder in folders]
    sign = -1 if direction == "maximize" else 1

    def rank(row: dict[str, Any]) -> tuple[bool, float, int, str]:
        value = row[metric]
        # Runs without a value or with NaN come last.
        known = value != "" and not math.isnan(value)
        return not known, sign * value if known else 0.0, len(row["run"]), row["run"]

    rows.sort(key=rank)
    # Columns of the first row in their order, then further columns of the other rows.
    columns = list(dict.fromkeys(key for row in rows for key in row))
    with (
        atomic_path(sweep_dir / TABLE_NAME) as temporary,
        temporary.open("w", encoding="utf-8", newline="") as file,
    ):
        writer = csv.DictWriter(file, columns or ["run", "state", metric], restval="")
        writer.writeheader()
        writer.writerows(rows)
    return rows


def _read_run(folder: Path, metric: str) -> dict[str, Any]:
    overrides = OmegaConf.load(folder / ".hydra/overrides.yaml")
    pairs = [str(override).partition("=") for override in overrides]
    paths = (folder / "metrics.json", folder / "progress.json")
    metrics, progress = map(_read_json, paths)
    stopped = progress.get("state") == "stopped"
    state = "unfinished" if not metrics else "stopped" if stopped else "finished"
    return {
        "run": folder.name,
        "state": state,
        metric: metrics.get(metric, ""),
        **{key.lstrip("+"): value.strip("'") for key, _, value in pairs},
        **metrics,
    }


def _read_json(path: Path) -> dict[str, Any]:
    """Return the content of a file, empty if it is missing or being written by another process."""
    try:
        content: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return content


def _write(config: DictConfig) -> None:
    write_table(Path(config.hydra.sweep.dir), config.objective.metric, config.objective.direction)
