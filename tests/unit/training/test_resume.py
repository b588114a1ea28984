"""Refusal of checkpoints from which a run cannot be resumed."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf

from talkinghead.errors import CheckpointError
from talkinghead.training.resume import LAST, ResumeDirectory, read_resumable, resolve_resume
from talkinghead.types import AVSpec

SPEC = AVSpec()
CONTENT = {
    "state_dict": {"generator.x": torch.zeros(999)},
    "loops": {},
    "iteration": 3,
    "av": SPEC.to_dict(),
    "generator": {"dim": 8, "channels": [1, 2], "dropout": 0.0},
}


def saved(content: Any) -> bytes:
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (saved(CONTENT)[:2000], "truncated or no checkpoint"),
        (b"", "truncated or no checkpoint"),
        (b"\xff\xd8\xff\xe0" + bytes(500), "truncated or no checkpoint"),
        (saved({"state_dict": {}}), "not a training checkpoint"),
        (saved([1, 2]), "not a training checkpoint"),
        (
            saved({**CONTENT, "generator": None, "sync_expert": {"dim": 8}}),
            "holds no generator, but a sync_expert",
        ),
        (saved({**CONTENT, "generator": {"dim": 4}}), "generator with dim=4, this run has 8"),
    ],
)
def test_other_files_are_refused_in_one_line(tmp_path: Path, data: bytes, message: str) -> None:
    path = tmp_path / "last.ckpt"
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match=message) as caught:
        read_resumable(path, "generator", {"dim": 8, "channels": (1, 2)}, SPEC)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


def test_checkpoint_of_the_same_network_is_accepted(tmp_path: Path) -> None:
    (tmp_path / "last.ckpt").write_bytes(saved(CONTENT))
    arguments = {"dim": 8, "channels": (1, 2), "dropout": 0.1}
    assert read_resumable(tmp_path / "last.ckpt", "generator", arguments, SPEC) == 3


def test_only_generators_depend_on_the_mask(tmp_path: Path) -> None:
    path, spec = tmp_path / "last.ckpt", AVSpec(mask_top=150)
    path.write_bytes(saved({**CONTENT, "sync_expert": {"dim": 8}}))
    assert read_resumable(path, "sync_expert", {"dim": 8}, spec) == 3
    with pytest.raises(CheckpointError, match=r"another AVSpec \(mask_top: 144 != 150, its value"):
        read_resumable(path, "generator", {"dim": 8, "channels": (1, 2)}, spec)


def config(folder: Path, **changes: Any) -> Any:
    settings = {
        "ckpt_path": "last",
        "model": {"_target_": "gan", "generator": {"dim": 8}, "max_iterations": 4},
        "data": {"_target_": "data", "corpus_dir": "corpus", "batch_size": 2},
        "hydra": {"run": {"dir": f"{folder}/now"}, "overrides": {"hydra": []}},
    }
    return OmegaConf.merge(settings, changes)


def make_run(folder: Path, **changes: Any) -> None:
    (folder / LAST).parent.mkdir(parents=True)
    (folder / LAST).touch()
    (folder / ".hydra").mkdir()
    stored = OmegaConf.masked_copy(config(folder, **changes), ["ckpt_path", "model", "data"])
    OmegaConf.save(stored, folder / ".hydra" / "config.yaml")


def resumed(folder: Path, **changes: Any) -> str:
    current = config(folder, **changes)
    ResumeDirectory().on_run_start(current)
    return Path(current.hydra.run.dir).name


def test_last_is_the_newest_run_of_the_same_model_and_corpus(tmp_path: Path) -> None:
    make_run(tmp_path / "same")
    make_run(tmp_path / "other", model={"_target_": "expert"})
    assert resumed(tmp_path, model={"max_iterations": 9}, data={"batch_size": 4}) == "same"
    assert resumed(tmp_path, model={"_target_": "expert"}) == "other"
    # A relative and an absolute path of the corpus are equal.
    assert resumed(tmp_path, data={"corpus_dir": str(Path("corpus").absolute())}) == "same"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": {"corpus_dir": "b"}}, "another data.corpus_dir"),
        (
            {"model": {"generator": {"dim": 4}}},
            r"another model\.generator\.dim \(8; this run has 4",
        ),
    ],
)
def test_last_refuses_runs_of_another_model_or_corpus(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    make_run(tmp_path / "same")
    assert resumed(tmp_path, **changes) == "now"
    with pytest.raises(CheckpointError, match=message):
        resolve_resume("last", tmp_path / "now")
