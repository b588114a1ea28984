"""Tests of logging to W&B (offline) and CSV."""

from __future__ import annotations

import csv
import os
import shutil
import struct
import subprocess
import time
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import wandb
from helpers.tiny_training import TRAINER, CurveModule
from torch.utils.data import DataLoader
from wandb.proto import wandb_internal_pb2

from talkinghead.training import experiment_tracking as tracking
from talkinghead.training.callbacks.last_checkpoint import LastCheckpoint
from talkinghead.training.experiment_tracking import csv_logger, git_state, wandb_logger
from talkinghead.training.training_run import build_trainer, train


@pytest.fixture(autouse=True)
def _no_launch_inputs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do not read inputs of W&B Launch, whose modules take seconds to import."""
    monkeypatch.setattr(wandb.Run, "_detect_and_apply_job_inputs", lambda run: None)


class Data(L.LightningDataModule):
    def train_dataloader(self) -> Any:
        return DataLoader([0, 1])  # type: ignore[arg-type]


def fit(folder: Path) -> None:
    logger = wandb_logger(str(folder), project="tests")
    callback = LastCheckpoint(str(folder / "checkpoints"))
    trainer = build_trainer({**TRAINER, "max_epochs": 1}, [logger], [callback])
    train(CurveModule([0.0]), Data(), trainer, config={"optimizer": {"lr": 0.5}, "seed": 1})


def read_records(folder: Path) -> list[Any]:
    """Return all records of an offline run; the file has the log format of LevelDB."""
    (path,) = folder.glob("wandb/offline-run-*/run-*.wandb")
    deadline, found = time.monotonic() + 30, []
    # W&B writes the last record, `exit`, in another process.
    while not any(record.HasField("exit") for record in found):
        assert time.monotonic() < deadline
        time.sleep(0.05)
        data, found, part, at = path.read_bytes(), [], b"", 7
        while at + 7 <= len(data):
            # The file has blocks of 32 KiB. The header of a record has a checksum, a length, and a
            # flag that tells whether more parts of the record follow.
            if (left := -at % 32768) < 7 and left:
                at += left
                continue
            length, kind = struct.unpack("<HB", data[at + 4 : at + 7])
            part += data[at + 7 : at + 7 + length]
            at += 7 + length
            if kind in (1, 4):
                found.append(wandb_internal_pb2.Record.FromString(part))
                part = b""
    return found


def test_runs_of_a_sweep_form_one_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path / "data"))
    for number in "01":
        fit(tmp_path / "my sweep" / number)
    runs = [read_records(tmp_path / "my sweep" / number) for number in "01"]
    started = [next(r.run for r in run if r.HasField("run")) for run in runs]
    assert [run.display_name for run in started] == ["0", "1"]
    assert {run.run_group for run in started} == {"my sweep"}
    assert len({run.run_id for run in started}) == 2
    for run in runs:
        updates = [r.config.update for r in run if r.HasField("config")]
        config = {u.key or ".".join(u.nested_key): u.value_json for us in updates for u in us}
        assert config["optimizer"] == '{"lr":0.5}'
        assert "commit" in config["git"] or not git_state()
        (artifact,) = [r.artifact for r in run if r.HasField("artifact")]
        assert artifact.type == "model"
        assert [entry.path for entry in artifact.manifest.contents] == ["model.ckpt"]
        assert sorted(artifact.aliases) == ["last", "latest"]


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_git_state_is_the_commit_and_whether_files_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def git(*arguments: str) -> str:
        identity = ("-c", "user.name=a", "-c", "user.email=a@b.c")
        command = ["git", "-C", str(tmp_path), *identity, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    monkeypatch.setattr(tracking, "__file__", str(tmp_path / "tracking.py"))
    assert git_state() == {}
    (tmp_path / "tracking.py").write_text("1")
    git("init", "-q")
    git("add", ".")
    git("commit", "-qm", "First")
    assert git_state() == {"commit": git("rev-parse", "HEAD"), "dirty": False}
    (tmp_path / "tracking.py").write_text("2")
    assert git_state()["dirty"]
    monkeypatch.setenv("PATH", "")
    assert git_state() == {}


@pytest.mark.filterwarnings("error:Experiment logs directory")
def test_resumed_run_appends_to_its_csv_log(tmp_path: Path) -> None:
    for step, metrics in enumerate(({"loss": 2.0}, {"loss": 1.0, "accuracy": 0.5})):
        logger = csv_logger(str(tmp_path))
        logger.log_metrics(metrics, step)
        logger.save()
    with (tmp_path / "csv" / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["loss"] for row in rows] == ["2.0", "1.0"]
    assert [row["accuracy"] for row in rows] == ["", "0.5"]


def test_csv_log_survives_a_process_that_is_killed_when_it_resumes(tmp_path: Path) -> None:
    logger = csv_logger(str(tmp_path))
    logger.log_metrics({"loss": 2.0}, 0)
    logger.save()
    path = tmp_path / "csv" / "metrics.csv"
    text = path.read_text()
    path.replace(path.with_name("metrics.earlier.csv"))  # The state when it was killed.
    csv_logger(str(tmp_path))
    assert path.read_text() == text
    assert [one.name for one in path.parent.iterdir()] == ["metrics.csv"]


def test_git_that_hangs_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "git"
    program.write_text("#!/bin/sh\nexec sleep 30\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(tracking, "_GIT_TIMEOUT_S", 0.3)
    started_s = time.monotonic()
    assert git_state() == {}
    assert time.monotonic() - started_s < 10
