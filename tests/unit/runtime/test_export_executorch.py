"""ExecuTorch is called frame by frame and stretch by stretch, and its errors are told as ours."""

import json
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers.small_predictor import GENERATOR, SPEC

from talkinghead.errors import CheckpointError
from talkinghead.models.checkpoint import build, load_generator, save_release
from talkinghead.runtime import backend
from talkinghead.runtime.backend import METADATA, ExportedGenerator
from talkinghead.runtime.export.example_inputs import demo_sample
from talkinghead.runtime.export.exporter import TOLERANCE, compare, example_inputs, export_generator
from talkinghead.runtime.loading import load_backend


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    torch.manual_seed(0)
    arguments = {**GENERATOR, "emotions": ["calm", "joy"], "head_pose": True}
    model = build("generator", arguments, SPEC)
    for weight in (model.decoder.head.weight, model.emotion.table.weight):
        torch.nn.init.normal_(weight, std=0.1)
    meta = {"generator": arguments, "av": SPEC.to_dict(), "license": "none"}
    path = tmp_path_factory.mktemp("release") / "tiny.safetensors"
    save_release(path, "generator", model, {**meta, "trained_on": "nothing"})
    return path


class FakeMethod:
    """Adds its inputs up; takes one frame [1, 2] at a time, as a method planned for that does."""

    def execute(self, inputs):
        if inputs[0].shape != (1, 2):
            raise RuntimeError("method->set_inputs() failed with error 0x10")
        return [sum(inputs)]


@pytest.fixture
def opened(monkeypatch, tmp_path):
    """Opens a file with a stand-in for ExecuTorch's runtime, which refuses `broken.pte`."""

    def load_program(path):
        if path.name == "broken.pte":
            raise RuntimeError("Failed to load program, error: 0x23")
        return SimpleNamespace(load_method={"forward": FakeMethod()}.get)

    for name in ("decode.pte", "broken.pte"):
        (tmp_path / name).write_bytes(b"....ET12")
    runtime = SimpleNamespace(get=lambda: SimpleNamespace(load_program=load_program))
    for name in ("executorch", "executorch.runtime"):
        monkeypatch.setitem(sys.modules, name, SimpleNamespace(Runtime=runtime))
    return backend.loader_of("executorch")


def test_a_part_is_called_once_a_frame(opened, tmp_path):
    frames, reference = np.arange(6.0).reshape(3, 2), np.full((1, 2), 10.0)
    (output,) = opened(tmp_path / "decode.pte")([frames, reference])
    assert np.array_equal(output, frames + reference)


def test_what_the_runtime_refuses_is_a_checkpoint_error(opened, tmp_path):
    with pytest.raises(CheckpointError, match=r"broken\.pte cannot be loaded .*0x23.*again"):
        opened(tmp_path / "broken.pte")
    (tmp_path / "foreign.pte").write_bytes(bytes(range(120, 140)))
    with pytest.raises(CheckpointError, match=r"foreign\.pte is no ExecuTorch program"):
        opened(tmp_path / "foreign.pte")
    with pytest.raises(CheckpointError, match=r"missing\.pte cannot be read .*export it again"):
        opened(tmp_path / "missing.pte")
    with pytest.raises(CheckpointError, match=r"decode\.pte on \[1, 3\] .*0x10"):
        opened(tmp_path / "decode.pte")([np.zeros((1, 3))])


def test_stretches_of_audio_give_what_the_whole_gives(checkpoint, tmp_path, monkeypatch):
    export_generator(checkpoint, tmp_path / "script", "torchscript")
    path, model = tmp_path / "script" / METADATA, load_generator(checkpoint).model
    path.write_text(json.dumps({**json.loads(path.read_text()), "max_windows": 12}))
    generator = ExportedGenerator(path.parent, "torch")
    encode, lengths = generator._parts["encode_audio"], []

    def counting(inputs):
        lengths.append(inputs[0].shape[1])
        return encode(inputs)

    monkeypatch.setitem(generator._parts, "encode_audio", counting)
    audio, token = example_inputs(model, demo_sample(SPEC, model), 25)["encode_audio"]
    with torch.inference_mode():
        expected, tokens = (
            g.encode_audio(audio, SimpleNamespace(token=token)) for g in (model, generator)
        )
    assert max(lengths) == 12
    assert torch.allclose(tokens, expected, atol=1e-5)


@pytest.mark.slow
def test_executorchs_frames_are_torchs(checkpoint, tmp_path):
    pytest.importorskip("executorch.runtime")
    report = export_generator(checkpoint, tmp_path / "out", "executorch")
    assert report.max_difference <= TOLERANCE
    metadata = json.loads((tmp_path / "out" / METADATA).read_text())
    model, (generator, spec) = load_generator(checkpoint).model, load_backend(tmp_path / "out")
    assert spec == SPEC
    assert metadata["max_frames"] == 1
    # More frames than a call takes, and more windows.
    sample = demo_sample(SPEC, model, 70)
    assert sample.audio.shape[1] > metadata["max_windows"] - 1
    assert compare(generator, model, sample)[0] <= TOLERANCE
