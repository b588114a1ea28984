"""Checkpoint files: round trips and errors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.tiny_training import GENERATOR as TINY_GENERATOR
from helpers.tiny_training import SPEC

from talkinghead.errors import CheckpointError
from talkinghead.models.checkpoint import (
    EXPERT,
    GENERATOR,
    SCHEMA_VERSION,
    build,
    load_expert,
    load_generator,
    save_release,
)

ARGUMENTS = TINY_GENERATOR
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


def test_training_checkpoint_gives_the_moving_average(tmp_path: Path) -> None:
    path = _training(tmp_path / "last.ckpt")
    state = torch.load(path, weights_only=True)["state_dict"]
    loaded = load_generator(path).model.state_dict()
    name = "decoder.head.weight"
    torch.testing.assert_close(loaded[name], state[f"ema.generator.{name}"])
    assert not torch.equal(loaded[name], state[f"generator.{name}"])


def test_expert_round_trip_is_frozen(tmp_path: Path) -> None:
    arguments = {"dim": 16, "image_channels": [4, 8, 8], "audio_channels": [4, 4, 8, 8]}
    expert = build(EXPERT, arguments, SPEC)
    meta = {EXPERT: arguments, "av": SPEC.to_dict(), "license": "MIT", "trained_on": "nothing"}
    save_release(tmp_path / "expert.safetensors", EXPERT, expert, meta)
    loaded = load_expert(tmp_path / "expert.safetensors")
    assert not any(p.requires_grad for p in loaded.model.parameters())


def test_a_missing_file_or_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"nothing\.ckpt does not exist"):
        load_generator(tmp_path / "nothing.ckpt")
    with pytest.raises(CheckpointError, match="is a folder"):
        load_generator(tmp_path)


@pytest.mark.parametrize("keep", [0, 10, 2000])
def test_truncated_files_are_refused(tmp_path: Path, keep: int) -> None:
    for path in (_release(tmp_path / "m.safetensors"), _training(tmp_path / "m.ckpt")):
        path.write_bytes(path.read_bytes()[:keep])
        with pytest.raises(CheckpointError, match="truncated"):
            load_generator(path)


def test_another_schema_or_program_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="schema_version 99, this version reads 1"):
        load_generator(_training(tmp_path / "new.ckpt", schema_version=99))
    torch.save({"state_dict": {}}, tmp_path / "foreign.ckpt")
    with pytest.raises(CheckpointError, match="no schema_version"):
        load_generator(tmp_path / "foreign.ckpt")


def test_an_expert_is_refused_as_generator(tmp_path: Path) -> None:
    content = {"state_dict": {}, "schema_version": SCHEMA_VERSION, EXPERT: {}, "av": {}}
    torch.save(content, tmp_path / "expert.ckpt")
    with pytest.raises(CheckpointError, match="holds no generator"):
        load_generator(tmp_path / "expert.ckpt")


def test_weights_of_another_shape_are_refused(tmp_path: Path) -> None:
    path = _training(tmp_path / "odd.ckpt", generator={**ARGUMENTS, "dim": 48})
    with pytest.raises(CheckpointError, match="does not fit"):
        load_generator(path)


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    torch.save({"state_dict": {}, "payload": Path}, tmp_path / "evil.ckpt")
    with pytest.raises(CheckpointError, match="no checkpoint of plain tensors"):
        load_generator(tmp_path / "evil.ckpt")
