"""TorchScript and ExecuTorch exports, and errors of the exporter."""

import json
import shutil
import sys
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers.small_predictor import GENERATOR, SPEC, Detector, speech
from safetensors.torch import load_file, save_file

from talkinghead.cli.main import main
from talkinghead.errors import CheckpointError, DependencyError, UsageError
from talkinghead.media.atomic_file import atomic_folder
from talkinghead.models.checkpoint import load_generator
from talkinghead.models.lipsync.conditioning import choose_emotion
from talkinghead.predict.mouth_generator import MouthGenerator
from talkinghead.predict.predictor import LipSyncPredictor
from talkinghead.predict.source.source_frame import Reference, SourceFrame
from talkinghead.runtime import loading
from talkinghead.runtime.export import verification
from talkinghead.runtime.export.exporter import export_generator
from talkinghead.runtime.export.generator_calls import example_inputs
from talkinghead.runtime.export.verification import MAX_PIXEL_DIFFERENCE, compare, demo_sample
from talkinghead.runtime.exported_generator import LIP_HEAD, METADATA
from talkinghead.runtime.inference_runtimes import file_loader


@pytest.mark.slow
def test_command_exports_torchscript_and_replaces_earlier_export(checkpoint, tmp_path, capsys):
    output = tmp_path / "new" / "script"
    arguments = [f"checkpoint={checkpoint}", f"output={output}", "format=torchscript"]
    assert main(["export", *arguments]) == 0
    assert "MiB; pixels differ from torch's by up to" in capsys.readouterr().out
    report = export_generator(checkpoint, output, "torchscript")
    assert report.max_difference <= MAX_PIXEL_DIFFERENCE
    assert loading.load_backend(output)[1] == SPEC


def test_exported_generator_reads_and_sets_lip_motion(
    conditioned_checkpoint, conditioned_folder, tmp_path
):
    model = load_generator(conditioned_checkpoint).model.requires_grad_(False)
    copy = tmp_path / "copy"
    shutil.copytree(conditioned_folder, copy)
    head = load_file(copy / LIP_HEAD)
    assert all(torch.equal(head[name], t) for name, t in model.lip_head.state_dict().items())
    torch.nn.init.normal_(model.lip_head.weight, std=0.1)
    save_file(model.lip_head.state_dict(), copy / LIP_HEAD)
    tokens, lips = torch.randn(2, 5, GENERATOR["dim"]), torch.randn(2, 5, 20, 2)
    exported = loading.load_backend(copy)[0]
    expected = model.decode_lip_motion(tokens)
    assert torch.allclose(exported.decode_lip_motion(tokens), expected, atol=1e-5)
    changed = exported.set_lip_motion(tokens, lips, 0.5)
    assert torch.allclose(changed, model.set_lip_motion(tokens, lips, 0.5), atol=1e-5)
    assert (changed - tokens).abs().max() > 0.01
    (copy / LIP_HEAD).unlink()
    with pytest.raises(CheckpointError, match=r"lip_head\.safetensors cannot be read"):
        loading.load_backend(copy)


def test_exported_generator_uses_head_pose_and_emotion(conditioned_checkpoint, conditioned_folder):
    image = np.random.default_rng(0).integers(0, 256, (256, 256, 3), np.uint8)
    transform = np.eye(2, 3, dtype=np.float32)
    lips = demo_sample(SPEC, load_generator(conditioned_checkpoint).model, 1).lips[0].numpy()
    reference = Reference(image, transform, lips, np.zeros(3, np.float32))
    conditions = ((0, "calm"), (25, "calm"), (0, "joy"))

    def mouth(path, yaw_deg, emotion):
        """Return the RGB field of a frame, generated as a predictor does it."""
        generator, spec = loading.load_backend(path)
        choose_emotion(generator.emotion, emotion)
        mouths = MouthGenerator(generator, spec)
        frame = SourceFrame(image.copy(), Fraction(0), Fraction(1, 25), transform, reference)
        mouths.tokens.push(speech(0.3).samples)
        mouths.tokens.finish()
        (generated,) = mouths.generate([replace(frame, pose=np.float32([yaw_deg, 0, 0]))])
        return generated.fields.rgb

    expected = [mouth(conditioned_checkpoint, *condition) for condition in conditions]
    for condition, rgb in zip(conditions, expected, strict=True):
        assert np.abs(mouth(conditioned_folder, *condition) - rgb).max() < 1e-3
        assert rgb is expected[0] or np.abs(rgb - expected[0]).max() > 0.01
    with pytest.raises(UsageError, match="emotion anger"):
        LipSyncPredictor.from_checkpoint(
            conditioned_folder, trained_emotion="anger", detector=Detector(), lip_prior=None
        )


def test_large_faces_get_mouths_of_twice_the_size_except_from_exports(
    conditioned_checkpoint, conditioned_folder
):
    image = np.zeros((1024, 1024, 3), np.uint8)
    lips = demo_sample(SPEC, load_generator(conditioned_checkpoint).model, 1).lips[0].numpy()

    def side(path, face_px):
        """Return the side of the RGB field of a face of `face_px` pixels."""
        generator, spec = loading.load_backend(path)
        transform = np.float32([[256 / face_px, 0, 0], [0, 256 / face_px, 0]])
        reference = Reference(image, transform, lips * face_px / 256, np.zeros(3, np.float32))
        mouths = MouthGenerator(generator, spec)
        frame = SourceFrame(image, Fraction(0), Fraction(1, 25), transform, reference)
        frame = replace(frame, pose=np.zeros(3, np.float32))
        mouths.tokens.push(speech(0.2).samples)
        mouths.tokens.finish()
        (generated,) = mouths.generate([frame])
        return generated.fields.rgb.shape[0]

    sides = [side(conditioned_checkpoint, face_px) for face_px in (128, 256, 300, 1000)]
    assert sides == [96, 96, 192, 192]
    assert side(conditioned_folder, 1000) == 96


@pytest.mark.slow
def test_inaccurate_export_is_refused_and_removed(checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr(verification, "MAX_PIXEL_DIFFERENCE", -1.0)
    with pytest.raises(CheckpointError, match=r"pixels differ from torch's by up to .*expected"):
        export_generator(checkpoint, tmp_path / "out", "torchscript")
    assert not list(tmp_path.iterdir())


def test_current_folder_and_links_are_replaced(tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    for number, output in enumerate((Path(), tmp_path / "link")):
        with atomic_folder(output) as folder:
            # A later run removes the folder if this process is killed.
            assert folder.name.startswith(".talkinghead-")
            (folder / "number").write_text(str(number))
        assert (tmp_path / "here" / "number").read_text() == str(number)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["here", "link"]


def test_unknown_settings_and_folders_are_refused(
    conditioned_checkpoint, conditioned_folder, tmp_path
):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("years of work")
    metadata = json.loads((conditioned_folder / METADATA).read_text())
    (tmp_path / METADATA).write_text(json.dumps({**metadata, "export_version": 3}))
    for arguments, message in (
        ((tmp_path / "out", "tensorrt"), "format=tensorrt is unknown: choose one of onnx"),
        ((tmp_path / "out", "onnx", "int4"), "quantize=int4 is unknown"),
        ((tmp_path / "out", "torchscript", "int8"), "int8 needs format=onnx"),
        ((tmp_path / "full", "torchscript"), "has other contents"),
    ):
        with pytest.raises(UsageError, match=message):
            export_generator(conditioned_checkpoint, *arguments)
    for arguments, message in (
        ((conditioned_checkpoint, "tflite"), "backend=tflite is unknown"),
        ((tmp_path / "full",), r"without a readable talkinghead\.json"),
        ((tmp_path,), r"export_version 3, this version reads \d+: export"),
        ((conditioned_folder, "onnx"), "torchscript, which backend=onnx does not read"),
    ):
        with pytest.raises((CheckpointError, UsageError), match=message):
            loading.load_backend(*arguments)
    generator, _ = loading.load_backend(conditioned_folder)
    with pytest.raises(UsageError, match="runs on the CPU in full precision"):
        loading.place(generator, "cpu", "bf16-mixed")


def test_cache_folder_depends_on_checkpoint_and_export_version(
    checkpoint, conditioned_checkpoint, monkeypatch
):
    folder = loading.cached_export_folder(checkpoint)
    assert loading.cached_export_folder(conditioned_checkpoint) != folder
    monkeypatch.setattr(loading, "EXPORT_VERSION", 0)
    assert loading.cached_export_folder(checkpoint) != folder


def test_errors_name_missing_packages(
    conditioned_checkpoint, conditioned_folder, tmp_path, monkeypatch
):
    for module in ("onnx", "onnxruntime", "openvino", "executorch", "executorch.exir"):
        monkeypatch.setitem(sys.modules, module, None)
    for format, package in (("onnx", r"'talkinghead\[export\]'"), ("executorch", "executorch")):
        with pytest.raises(DependencyError, match=f"pip install {package}.*format=torchscript"):
            export_generator(conditioned_checkpoint, tmp_path / "out", format)
    for name in ("onnx", "openvino"):
        with pytest.raises(DependencyError, match=r"pip install 'talkinghead\[export\]'"):
            loading.load_backend(conditioned_folder, name)


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


def test_executorch_program_is_called_once_per_frame(load, tmp_path):
    frames, reference = np.arange(6.0).reshape(3, 2), np.full((1, 2), 10.0)
    (output,) = load(tmp_path / "decode.pte")([frames, reference])
    assert np.array_equal(output, frames + reference)


def test_runtime_errors_become_checkpoint_errors(load, tmp_path):
    (tmp_path / "foreign.pte").write_bytes(bytes(range(120, 140)))
    for name, message in (
        ("broken.pte", "cannot be loaded .*0x23.*again"),
        ("foreign.pte", "is not an ExecuTorch program"),
        ("missing.pte", "cannot be read .*export it again"),
    ):
        with pytest.raises(CheckpointError, match=f"{name} {message}"):
            load(tmp_path / name)
    with pytest.raises(CheckpointError, match=r"decode\.pte on \[1, 3\] .*0x10"):
        load(tmp_path / "decode.pte")([np.zeros((1, 3))])


def test_segmented_audio_gives_the_same_tokens(
    conditioned_checkpoint, conditioned_folder, monkeypatch
):
    model, generator = (
        loading.load_backend(path)[0] for path in (conditioned_checkpoint, conditioned_folder)
    )
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
    generator, spec = loading.load_backend(tmp_path / "out")
    assert spec == SPEC
    assert metadata["max_frames"] == 1
    # Use more frames and more audio windows than one call accepts.
    sample = demo_sample(SPEC, model, 70)
    assert sample.audio.shape[1] > metadata["max_windows"] - 1
    assert compare(generator, model, sample)[0] <= MAX_PIXEL_DIFFERENCE
