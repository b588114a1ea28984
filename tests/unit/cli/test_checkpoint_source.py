"""Tests of checkpoints on the hub and of W&B artifacts as `checkpoint=`, with fake servers."""

from __future__ import annotations

import types
from pathlib import Path

import pytest
import wandb
from omegaconf import OmegaConf

from talkinghead.cli.shared import checkpoint_source
from talkinghead.cli.shared.checkpoint_source import fetch_checkpoint, fetch_checkpoints
from talkinghead.errors import CheckpointError, DependencyError, TalkingHeadError, UsageError
from talkinghead.runtime import hub


@pytest.fixture
def artifacts(tmp_path, monkeypatch) -> list[str]:
    """Replace W&B's server by one with one artifact; return the folders of its downloads."""
    downloads = []

    class Api:
        def __init__(self, timeout):
            pass

        def artifact(self, name):
            if name == "me/faces/model-1:login":
                raise wandb.errors.UsageError("api_key not configured")
            if name != "me/faces/model-1:best":
                raise wandb.errors.CommError(f"artifact {name} not found")
            return types.SimpleNamespace(digest="abc123", download=self._download)

        def _download(self, root):
            downloads.append(root)
            Path(root).mkdir(parents=True, exist_ok=True)
            (Path(root) / "model.ckpt").write_text("weights")
            return root

    monkeypatch.setattr(wandb, "Api", Api)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return downloads


def test_artifact_replaces_its_name_in_the_configuration(artifacts, tmp_path):
    cfg = OmegaConf.create(
        {"checkpoint": "wandb:me/faces/model-1:best", "model": {"init_from": "a.ckpt"}}
    )
    OmegaConf.set_struct(cfg, True)
    fetch_checkpoints(cfg)
    expected = tmp_path / "talkinghead" / "artifacts" / "abc123" / "model.ckpt"
    assert Path(cfg.checkpoint) == expected
    assert expected.read_text() == "weights"
    assert cfg.model.init_from == "a.ckpt"
    assert artifacts == [str(expected.parent)]


@pytest.mark.parametrize(
    ("source", "kind", "message"),
    [
        ("wandb:me/faces/model-1", UsageError, "expected wandb:ENTITY/PROJECT/ARTIFACT:ALIAS"),
        ("wandb:me/faces/none:v0", CheckpointError, "not found"),
        ("wandb:me/faces/model-1:login", DependencyError, "set WANDB_API_KEY"),
        ("hf:", UsageError, "expected hf:OWNER/NAME"),
    ],
)
def test_unusable_names_are_refused(artifacts, source, kind, message):
    with pytest.raises(TalkingHeadError, match=message) as caught:
        fetch_checkpoint(source)
    assert caught.type is kind


def test_name_on_the_hub_may_have_a_revision(monkeypatch):
    monkeypatch.setattr(hub, "find_pretrained", lambda *arguments: arguments)
    assert checkpoint_source.fetch_checkpoint("hf:me/face@v2") == ("me/face", "v2")
    assert checkpoint_source.fetch_checkpoint("hf:me/face") == ("me/face", None)
