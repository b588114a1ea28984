"""Run the stages of a recipe one after another, and continue after interruptions."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from talkinghead.data.manifest import write_json

SCRIPTS = Path(__file__).parent
RECORD_EVERY_S = 10.0

Command = Sequence[str | Path]


@dataclass(frozen=True)
class Stage:
    """A part of the recipe with a time budget in minutes on two CPU cores.

    Attributes:
        name: name of the stage.
        minutes: expected time; trainings and the distillation end when they reach it.
        commands: returns the commands; called when the earlier stages have ended.
        scores: returns the main scores of the finished stage.
    """

    name: str
    minutes: int
    commands: Callable[[], Iterable[Command]]
    scores: Callable[[], dict[str, Any]] = dict


def run_stages(output: Path, stages: Sequence[Stage]) -> None:
    """Run the unfinished stages, and update the table after each."""
    for stage in stages:
        record = _read_record(output, stage)
        if record["finished"]:
            continue
        print(f"{stage.name}: expected {stage.minutes} min", flush=True)
        try:
            for command in stage.commands():
                _run(command, output, stage, record)
            record.update(finished=True, scores=stage.scores())
            _write_record(output, stage, record)
        finally:
            write_table(output, stages)
        print(f"{stage.name}: {record['seconds'] / 60:.1f} min {record['scores']}", flush=True)


def write_table(output: Path, stages: Sequence[Stage]) -> None:
    """Write the time and the scores of each stage to OUTPUT/stages.md."""
    lines = ["| stage | expected, min | spent, min | scores |", "|---|---|---|---|"]
    total_s = 0.0
    for stage in stages:
        record = _read_record(output, stage)
        total_s += record["seconds"]
        scores = ", ".join(
            f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {value}"
            for name, value in record["scores"].items()
        )
        state = scores if record["finished"] else "not finished"
        spent = f"{record['seconds'] / 60:.1f}"
        lines.append(f"| {stage.name} | {stage.minutes} | {spent} | {state} |")
    expected = sum(stage.minutes for stage in stages)
    lines.append(f"| total | {expected} | {total_s / 60:.1f} | |")
    (output / "stages.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _run(command: Command, output: Path, stage: Stage, record: dict[str, Any]) -> None:
    """Run a command, and add its time to the record while it runs."""
    log_path = output / "logs" / f"{stage.name}.log"
    log_path.parent.mkdir(parents=True, exist_ok=True)
    before_s, started_s = record["seconds"], time.monotonic()
    with log_path.open("ab") as log:
        process = subprocess.Popen(list(map(str, command)), stdout=log, stderr=subprocess.STDOUT)
        try:
            code = None
            while code is None:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    code = process.wait(RECORD_EVERY_S)
                record["seconds"] = before_s + time.monotonic() - started_s
                _write_record(output, stage, record)
        finally:
            process.terminate()
            process.wait()
    if code:
        sys.exit(f"{stage.name} failed with status {code}: see {log_path}, then run this again")


def _read_record(output: Path, stage: Stage) -> dict[str, Any]:
    path = output / "stages" / f"{stage.name}.json"
    if path.is_file():
        return dict(json.loads(path.read_text(encoding="utf-8")))
    return {"seconds": 0.0, "finished": False, "scores": {}}


def _write_record(output: Path, stage: Stage, record: dict[str, Any]) -> None:
    write_json(output / "stages" / f"{stage.name}.json", record)


def talkinghead(command: str, **values: object) -> list[str]:
    """Return a command of this project with its settings."""
    settings = [f"{key}={value}" for key, value in values.items()]
    return [sys.executable, "-m", "talkinghead", command, *settings]


def script(name: str, *arguments: str | Path) -> Command:
    """Return the command of a script of this folder."""
    return [sys.executable, SCRIPTS / f"{name}.py", *arguments]
