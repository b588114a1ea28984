"""Tests of failing training runs, which must keep a valid checkpoint."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.tiny_training import SPEC, TRAINER, fit, make_data, make_module
from lightning.pytorch.callbacks import Callback

from talkinghead.data.manifest import Manifest
from talkinghead.errors import CheckpointError, CorpusError, TalkingHeadError
from talkinghead.training.callbacks.last_checkpoint import LastCheckpoint
from talkinghead.training.run_metrics import save_metrics
from talkinghead.training.training_run import build_trainer, train


def saved_iteration(folder: Path) -> int:
    """Check that a folder has one file, a valid checkpoint, and return its iteration."""
    (path,) = folder.iterdir()
    assert path.name == "last.ckpt"
    return int(torch.load(path, weights_only=True)["iteration"])


class Before(Callback):
    """A callback that calls a function with the batch of an iteration, counted from 0."""

    def __init__(self, iteration: int, act: Any) -> None:
        self.iteration, self.act = iteration, act

    def on_train_batch_start(
        self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int
    ) -> None:
        if pl_module.iteration == self.iteration:
            self.act(batch)


def test_non_finite_loss_error_names_clips_and_keeps_the_checkpoint(
    corpus: Path, tmp_path: Path
) -> None:
    named: list[str] = []

    def spoil(batch: dict[str, Any]) -> None:
        batch["mouths"][0, 0, 0, 0, 0] = float("nan")
        named.extend(batch["clip"])

    module = make_module()
    callbacks = LastCheckpoint(str(tmp_path), minutes=0.0), Before(2, spoil)
    with pytest.raises(TalkingHeadError) as error:
        fit(module, make_data(corpus, module), *callbacks)
    assert "train/generator/loss is nan in iteration 2, with the clips cartoon" in str(error.value)
    assert all(f"{clip} from frame" in str(error.value) for clip in named)
    assert saved_iteration(tmp_path) == 2


def test_resumed_run_that_was_finished_has_metrics(corpus: Path, tmp_path: Path) -> None:
    module = make_module()
    data = make_data(corpus, module)
    fit(module, data, LastCheckpoint(str(tmp_path / "checkpoints")))
    path = str(tmp_path / "checkpoints" / "last.ckpt")
    validated = train(make_module(), data, build_trainer(TRAINER, [], []), path)
    assert validated["val/loss"] > 0
    save_metrics(tmp_path, {"val/loss": 0.25})
    assert train(make_module(), data, build_trainer(TRAINER, [], []), path) == {"val/loss": 0.25}
    (tmp_path / "metrics.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"metrics\.json cannot be read"):
        train(make_module(), data, build_trainer(TRAINER, [], []), path)


def test_non_finite_weights_keep_the_checkpoint(corpus: Path, tmp_path: Path) -> None:
    module = make_module(max_iterations=1)
    fit(module, make_data(corpus, module), LastCheckpoint(str(tmp_path)))
    module = make_module(optimizer={"lr": float("inf"), "warmup_iterations": 0})
    with pytest.raises(TalkingHeadError, match=r"not finite after iteration 1 .*ckpt_path=last"):
        fit(module, make_data(corpus, module), LastCheckpoint(str(tmp_path), minutes=0.0))
    assert saved_iteration(tmp_path) == 1


# RLIMIT_FSIZE simulates a full disk. It also limits the output of the process, so the training runs
# in its own process, with its output in a pipe.
_FULL_DISK = """
import resource, sys
from pathlib import Path
sys.path[:0] = sys.argv[3:]
from helpers.tiny_training import fit, make_data, make_module
from lightning.pytorch.callbacks import Callback
from talkinghead.training.callbacks.last_checkpoint import LastCheckpoint

corpus, folder = map(Path, sys.argv[1:3])

class FillDisk(Callback):
    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if pl_module.iteration == 1:
            half = (folder / "last.ckpt").stat().st_size // 2
            hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
            resource.setrlimit(resource.RLIMIT_FSIZE, (half, hard))

module = make_module()
fit(module, make_data(corpus, module), LastCheckpoint(str(folder), minutes=0.0), FillDisk())
"""


@pytest.mark.slow
def test_failed_write_keeps_the_previous_checkpoint(corpus: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", _FULL_DISK, str(corpus), str(tmp_path)]
    command.append(str(Path(__file__).parents[2]))
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "MediaError" in done.stderr
    assert re.search(r"last\.ckpt could not be written .*ckpt_path=last", done.stderr)
    assert saved_iteration(tmp_path) == 1


def test_unsuitable_corpus_is_refused(corpus: Path, tmp_path: Path) -> None:
    module = make_module(av={**SPEC.to_dict(), "fmin": 60.0})
    with pytest.raises(CorpusError, match=r"fmin: 55\.0 != 60\.0"):
        fit(module, make_data(corpus, module, av=module.spec))
    manifest, module = Manifest.load(corpus), make_module()
    left = tuple(clip for clip in manifest.clips if clip.split != "train")
    replace(manifest, clips=left).save(tmp_path)
    (tmp_path / "clips").symlink_to(corpus / "clips")
    callback = LastCheckpoint(str(tmp_path / "run"))
    with pytest.raises(CorpusError, match="no clip of 5 frames or more in split train; add"):
        fit(module, make_data(tmp_path, module), callback)
    assert not (tmp_path / "run").exists()
