"""ExecuTorch programs: one call per frame, segments of audio, and errors of the runtime."""

import json
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers.small_predictor import SPEC

from talkinghead.errors import CheckpointError
from talkinghead.models.checkpoint import load_generator
from talkinghead.runtime.export.exporter import export_generator
from talkinghead.runtime.export.generator_calls import example_inputs
from talkinghead.runtime.export.verification import MAX_PIXEL_DIFFERENCE, compare, demo_sample
from talkinghead.runtime.exported_generator import METADATA
from talkinghead.runtime.inference_runtimes import file_loader
from talkinghead.runtime.loading import load_backend


class FakeMethod:
    """Add up the inputs, of one frame [1, 2] only, as a method planned for one frame does."""

    def execute(self, inputs):
        if inputs[0].shape != (1, 2):
            raise RuntimeError("method->set_inputs() failed with error 0x10")
        return [sum(inputs)]


@pytest.fixture
def load(monkeypatch, tmp_path):
    """The loader, with a replacement for ExecuTorch's runtime that refuses `broken.pte`."""

    def load_program(path):
        if path.name == "broken.pte":
            raise RuntimeError("Failed to load program, error: 0x23")
        return SimpleNamespace(load_method={"forward": FakeMethod()}.get)

    for name in ("decode.pte", "broken.pte"):
        (tmp_path / name).write_bytes(b"....ET12")
    runtime = SimpleNamespace(get=lambda: SimpleNamespace(load_program=load_program))
    for name in ("executorch", "executorch.runtime"):
        monkeypatch.setitem(sys.modules, name, SimpleNamespace(Runtime=runtime))
    return file_loader("executorch")


def test_program_is_called_once_per_frame(load, tmp_path):
    frames, reference = np.arange(6.0).reshape(3, 2), np.full((1, 2), 10.0)
    (output,) = load(tmp_path / "decode.pte")([frames, reference])
    assert np.array_equal(output, frames + reference)


def test_runtime_errors_become_checkpoint_errors(load, tmp_path):
    (tmp_path / "foreign.pte").write_bytes(bytes(range(120, 140)))
    for name, message in (
        ("broken.pte", "cannot be loaded .*0x23.*again"),
        ("foreign.pte", "is no ExecuTorch program"),
        ("missing.pte", "cannot be read .*export it again"),
    ):
        with pytest.raises(CheckpointError, match=f"{name} {message}"):
            load(tmp_path / name)
    with pytest.raises(CheckpointError, match=r"decode\.pte on \[1, 3\] .*0x10"):
        load(tmp_path / "decode.pte")([np.zeros((1, 3))])


def test_audio_segments_give_the_tokens_of_the_whole(checkpoint, torchscript_folder, monkeypatch):
    model, generator = (load_backend(path)[0] for path in (checkpoint, torchscript_folder))
    encode, lengths = generator._parts["encode_audio"], []

    def counting(inputs):
        lengths.append(inputs[0].shape[1])
        return encode(inputs)

    monkeypatch.setattr(generator, "_max_windows", 12)
    monkeypatch.setitem(generator._parts, "encode_audio", counting)
    audio, token = example_inputs(model, demo_sample(SPEC, model), 25)["encode_audio"]
    with torch.inference_mode():
        expected, tokens = (
            g.encode_audio(audio, SimpleNamespace(token=token)) for g in (model, generator)
        )
    assert max(lengths) == 12
    assert torch.allclose(tokens, expected, atol=1e-5)


@pytest.mark.slow
def test_executorch_frames_match_torch(conditioned_checkpoint, tmp_path):
    pytest.importorskip("executorch.runtime")
    report = export_generator(conditioned_checkpoint, tmp_path / "out", "executorch")
    assert report.max_difference <= MAX_PIXEL_DIFFERENCE
    metadata = json.loads((tmp_path / "out" / METADATA).read_text())
    model = load_generator(conditioned_checkpoint).model
    generator, spec = load_backend(tmp_path / "out")
    assert spec == SPEC
    assert metadata["max_frames"] == 1
    # More frames, and more audio windows, than one call accepts.
    sample = demo_sample(SPEC, model, 70)
    assert sample.audio.shape[1] > metadata["max_windows"] - 1
    assert compare(generator, model, sample)[0] <= MAX_PIXEL_DIFFERENCE
