"""Checkpoint files: round trips and errors."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.tiny_training import GENERATOR as ARGUMENTS
from helpers.tiny_training import SPEC
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from talkinghead.errors import CheckpointError
from talkinghead.models.checkpoint import (
    EXPERT,
    GENERATOR,
    SCHEMA_VERSION,
    build,
    load_generator,
    save_release,
)
from talkinghead.models.tensor_files import read_plain_tensors

META = {GENERATOR: ARGUMENTS, "av": SPEC.to_dict(), "license": "MIT", "trained_on": "nothing"}


def _release(path: Path, **changes: Any) -> Path:
    torch.manual_seed(0)
    save_release(path, GENERATOR, build(GENERATOR, ARGUMENTS, SPEC), {**META, **changes})
    return path


def _training(path: Path, **changes: Any) -> Path:
    torch.manual_seed(0)
    model, ema = (build(GENERATOR, ARGUMENTS, SPEC) for _ in range(2))
    state = {f"generator.{k}": v for k, v in model.state_dict().items()}
    state |= {f"ema.generator.{k}": v for k, v in ema.state_dict().items()}
    content = {"state_dict": state, "schema_version": SCHEMA_VERSION, **META, **changes}
    torch.save(content, path)
    return path


def test_release_round_trip(tmp_path: Path) -> None:
    loaded = load_generator(_release(tmp_path / "model.safetensors"))
    torch.manual_seed(0)
    original = build(GENERATOR, ARGUMENTS, SPEC)
    assert loaded.spec == SPEC
    assert loaded.meta["license"] == "MIT"
    assert not loaded.model.training
    for name, value in original.state_dict().items():
        torch.testing.assert_close(
            loaded.model.state_dict()[name], value, atol=1e-3, rtol=1e-3, msg=name
        )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state["lip_head.bias"].fill_(torch.nan), "NaN .* in lip_head.bias"),
        (lambda state: state.pop("lip_head.bias"), r"Missing key.* \"lip_head.bias\""),
    ],
)
def test_missing_and_invalid_weights_are_named(tmp_path: Path, change: Any, message: str) -> None:
    path = _release(tmp_path / "model.safetensors")
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    state = load_file(path)
    change(state)
    save_file(state, path, metadata)
    with pytest.raises(CheckpointError, match=message):
        load_generator(path)


def test_averaged_weights_are_loaded_from_training_checkpoints(tmp_path: Path) -> None:
    path = _training(tmp_path / "last.ckpt")
    state = torch.load(path, weights_only=True)["state_dict"]
    loaded = load_generator(path).model.state_dict()
    name = "decoder.head.weight"
    torch.testing.assert_close(loaded[name], state[f"ema.generator.{name}"])
    assert not torch.equal(loaded[name], state[f"generator.{name}"])


@pytest.mark.parametrize("keep", [0, 10, 2000])
def test_truncated_files_are_refused(tmp_path: Path, keep: int) -> None:
    for path in (_release(tmp_path / "m.safetensors"), _training(tmp_path / "m.ckpt")):
        path.write_bytes(path.read_bytes()[:keep])
        with pytest.raises(CheckpointError, match="truncated"):
            load_generator(path)


OTHER_NETWORK = {"state_dict": {}, "schema_version": SCHEMA_VERSION, EXPERT: {}, "av": {}}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"file\.ckpt does not exist"),
        ("folder", "is a folder"),
        ({"schema_version": 99}, "schema_version 99, this version reads 1"),
        ({GENERATOR: {**ARGUMENTS, "dim": 48}}, "does not fit"),
        (OTHER_NETWORK, "holds no generator"),
        ({"state_dict": {}}, "no schema_version"),
        # Nothing is unpickled.
        ({"state_dict": {}, "payload": Path}, "no checkpoint of plain tensors"),
    ],
)
def test_invalid_checkpoints_are_refused(tmp_path: Path, content: Any, message: str) -> None:
    path = tmp_path / "file.ckpt"
    if content == "folder":
        path.mkdir()
    elif content is not None and "state_dict" in content:
        torch.save(content, path)
    elif content is not None:
        _training(path, **content)
    with pytest.raises(CheckpointError, match=message):
        load_generator(path)


def test_pipe_is_no_file_of_tensors(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "weights.pth")
    with pytest.raises(CheckpointError, match=r"weights\.pth is a device or a pipe"):
        read_plain_tensors(tmp_path / "weights.pth")
    with pytest.raises(CheckpointError, match=r"weights\.pth is a device or a pipe"):
        load_generator(tmp_path / "weights.pth")
