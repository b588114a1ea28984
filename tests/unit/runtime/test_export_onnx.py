"""Exported models give torch's frames in every runtime, and say what they are."""

import json
import logging
import runpy
import shutil
import subprocess
import sys
import wave
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from helpers.small_predictor import GENERATOR, HEIGHT, SPEC, WIDTH, Detector, speech
from safetensors.torch import load_file, save_file

from talkinghead.cli.main import main
from talkinghead.errors import CheckpointError, DependencyError, UsageError
from talkinghead.features.audio_features import LogMel
from talkinghead.media.reader import read_image
from talkinghead.media.writer import write_image
from talkinghead.models.checkpoint import build, load_generator, save_release
from talkinghead.predict.predictor import LipSyncPredictor
from talkinghead.runtime import backend, loading
from talkinghead.runtime.backend import METADATA, PARTS, ExportedGenerator
from talkinghead.runtime.export import exporter as export
from talkinghead.runtime.export.example_inputs import Sample, demo_sample
from talkinghead.runtime.export.exporter import (
    TOLERANCE,
    compare,
    export_generator,
    generate_mouths,
)
from talkinghead.runtime.export.quantisation import quantise_onnx
from talkinghead.types import AVSpec

EXAMPLE = Path(__file__).parents[3] / "scripts" / "onnx_example.py"


def make_checkpoint(path, **arguments):
    torch.manual_seed(0)
    model = build("generator", {**GENERATOR, **arguments}, SPEC)
    for weight in (model.decoder.head.weight, *conditions(model)):
        torch.nn.init.normal_(weight, std=0.1)
    meta = {"generator": {**GENERATOR, **arguments}, "av": SPEC.to_dict()}
    save_release(path, "generator", model, {**meta, "license": "none", "trained_on": "nothing"})
    return path


def conditions(model):
    """What begins at nothing: the weights of the emotions and of the head's turn."""
    return [model.emotion.table.weight, model.pose.layers[-1].weight] if model.emotion else []


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return make_checkpoint(tmp_path_factory.mktemp("release") / "tiny.safetensors")


@pytest.fixture(scope="module")
def exported(checkpoint, tmp_path_factory):
    """The ONNX files that `backend=onnx` makes of a checkpoint and keeps in the user's cache."""
    for package in ("onnx", "onnxruntime", "onnxscript"):
        pytest.importorskip(package)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield loading.cached_export(checkpoint)


@pytest.fixture
def model(checkpoint):
    return load_generator(checkpoint).model.requires_grad_(False)


@pytest.fixture(scope="module")
def script(checkpoint, tmp_path_factory):
    """A TorchScript export, which is made sooner."""
    folder = tmp_path_factory.mktemp("export") / "script"
    export_generator(checkpoint, folder, "torchscript")
    return folder


def test_an_export_can_be_told_how_lips_move(script, model, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(script, copy)
    head = load_file(copy / backend.LIP_HEAD)
    assert all(torch.equal(head[name], t) for name, t in model.lip_head.state_dict().items())
    torch.nn.init.normal_(model.lip_head.weight, std=0.1)
    save_file(model.lip_head.state_dict(), copy / backend.LIP_HEAD)
    tokens, lips = torch.randn(2, 5, GENERATOR["dim"]), torch.randn(2, 5, 20, 2)
    exported = loading.load_backend(copy)[0]
    assert torch.allclose(
        exported.decode_lip_motion(tokens), model.decode_lip_motion(tokens), atol=1e-5
    )
    told = exported.set_lip_motion(tokens, lips, 0.5)
    assert torch.allclose(told, model.set_lip_motion(tokens, lips, 0.5), atol=1e-5)
    assert (told - tokens).abs().max() > 0.01
    (copy / backend.LIP_HEAD).unlink()
    with pytest.raises(CheckpointError, match=r"lip_head\.safetensors cannot be read"):
        loading.load_backend(copy)


@pytest.fixture(scope="module")
def exported_decoder(checkpoint, tmp_path_factory):
    """The decoder alone, and what it is shown: a whole export takes four times as long."""
    for package in ("onnx", "onnxscript"):
        pytest.importorskip(package)
    model = load_generator(checkpoint).model.requires_grad_(False)
    call, path = export.Call(model, "decode"), tmp_path_factory.mktemp("onnx") / "decode.onnx"
    sample = demo_sample(SPEC, model, 7)
    export.writer_of("onnx")(call, export.example_inputs(model, sample, 3)["decode"], path)
    return path, call, [export.example_inputs(model, sample, n)["decode"] for n in (1, 7)]


@pytest.mark.slow
@pytest.mark.parametrize("runtime", ["onnx", "openvino"])
def test_an_exported_decoder_gives_what_torchs_gives(exported_decoder, runtime):
    pytest.importorskip({"onnx": "onnxruntime"}.get(runtime, runtime))
    path, call, examples = exported_decoder
    run = backend.loader_of(runtime)(path)
    for inputs in examples:
        made = run([tensor.numpy() for tensor in inputs])
        for expected, given in zip(call(*inputs), made, strict=True):
            assert given.shape == tuple(expected.shape)
            assert np.abs(expected.numpy() - given).max() < 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("name", ["onnx", "openvino"])
def test_a_backends_frames_are_torchs(checkpoint, exported, model, name):
    pytest.importorskip({"onnx": "onnxruntime"}.get(name, name))
    assert (
        compare(ExportedGenerator(exported, name), model, demo_sample(SPEC, model))[0] <= TOLERANCE
    )
    # Smooth: between neighbouring pixels of white noise a rounded place is many levels.
    noise = np.random.default_rng(0).standard_normal((HEIGHT, WIDTH, 3)).astype(np.float32)
    photo = (130 + 200 * cv2.GaussianBlur(noise, (0, 0), 3)).clip(40, 255).astype(np.uint8)

    def frames(path, name):
        predictor = LipSyncPredictor.from_checkpoint(path, backend=name, detector=Detector())
        return np.stack([image for image, _ in predictor.predict(photo, speech(0.5))])

    expected = frames(checkpoint, "torch").astype(int)
    assert np.abs(expected - expected[0]).max() > 3
    for path in (checkpoint, exported):
        off = np.abs(expected - frames(path, name))
        assert off.max() <= 6
        assert off.mean() < 0.01


@pytest.mark.slow
def test_a_checkpoint_is_exported_once(checkpoint, exported, tmp_path):
    before = (exported / METADATA).stat().st_mtime_ns
    assert loading.cached_export(checkpoint) == exported
    assert (exported / METADATA).stat().st_mtime_ns == before
    assert [path.name for path in exported.parent.iterdir()] == [exported.name]
    other = make_checkpoint(tmp_path / "other.safetensors", past_frames=2)
    assert loading.cached_export_folder(other) != exported


@pytest.mark.slow
def test_an_export_says_what_it_is(exported, model):
    metadata = json.loads((exported / METADATA).read_text())
    assert AVSpec.from_dict(metadata["av"]) == SPEC
    assert metadata["license"] == "none"
    assert metadata["generator"] == GENERATOR
    assert metadata["context_frames"] == model.context_frames == 3
    assert metadata["max_difference"] <= TOLERANCE
    files = {METADATA, backend.LIP_HEAD, *(f"{p}.onnx" for p in PARTS)}
    assert {path.name for path in exported.iterdir()} == files
    session = pytest.importorskip("onnxruntime").InferenceSession(str(exported / "decode.onnx"))
    decode = metadata["parts"]["decode"]
    assert [tensor.name for tensor in session.get_inputs()] == decode["inputs"]
    assert [tensor.name for tensor in session.get_outputs()] == decode["outputs"]
    num_frames, dim = session.get_inputs()[0].shape
    assert isinstance(num_frames, str)  # It may be any number.
    assert dim == 32


@pytest.mark.slow
def test_int8_is_smaller_and_near(exported, model, tmp_path):
    for path in exported.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    sample = demo_sample(SPEC, model)
    quantise_onnx(tmp_path, export.example_inputs(model, sample, 3))
    difference, psnr_db = compare(ExportedGenerator(tmp_path, "onnx"), model, sample)
    assert difference > 0
    assert psnr_db > export.MIN_PSNR_DB - 3  # A random model is coarser than a trained one.


@pytest.mark.slow
def test_int8_that_fails_leaves_the_log_as_it_was(exported, tmp_path):
    (tmp_path / METADATA).write_bytes((exported / METADATA).read_bytes())
    inputs = dict.fromkeys(PARTS, ())
    with pytest.raises((OSError, ValueError)):
        quantise_onnx(tmp_path, inputs)
    assert logging.root.isEnabledFor(logging.WARNING)


@pytest.mark.slow
def test_the_example_needs_numpy_and_onnxruntime_alone(exported, model, tmp_path):
    sample = demo_sample(SPEC, model, 12)
    pixels = (sample.face[0].permute(1, 2, 0) * 255).round().byte().numpy()
    write_image(tmp_path / "face.png", pixels)
    samples = (speech(0.48).samples * 32767).astype(np.int16)
    with wave.open(str(tmp_path / "speech.wav"), "wb") as file:
        file.setparams((1, 2, SPEC.sample_rate, 0, "NONE", ""))
        file.writeframes(samples.tobytes())
    blocked = (
        "import sys\nfor name in ('torch', 'talkinghead', 'cv2', 'av'): sys.modules[name] = None\n"
    )
    code = f"{blocked}import runpy; runpy.run_path({str(EXAMPLE)!r}, run_name='__main__')"
    np.save(tmp_path / "lips.npy", sample.lips[0].numpy())
    files = (tmp_path / name for name in ("face.png", "lips.npy", "speech.wav", "mouths"))
    arguments = [exported, *files]
    subprocess.run([sys.executable, "-c", code, *map(str, arguments)], check=True)

    example = runpy.run_path(str(EXAMPLE))
    heard = torch.from_numpy(samples.astype(np.float32) / 32768)
    mel = example["log_mel"](heard.numpy(), SPEC.to_dict())
    assert np.abs(mel - LogMel(SPEC)(heard).numpy()).max() < 1e-3
    metadata = json.loads((exported / METADATA).read_text())
    windows = torch.from_numpy(example["audio_windows"](mel, 12, metadata))
    face = torch.from_numpy(pixels).permute(2, 0, 1)[None] / 255
    still = Sample(face, sample.lips, sample.masked_face[:1].expand(12, -1, -1, -1), windows)
    expected = generate_mouths(model, still)[1:13].permute(0, 2, 3, 1) * 255
    written = sorted((tmp_path / "mouths").iterdir())
    made = np.stack([read_image(path) for path in written])
    assert np.abs(made - expected.numpy()).max() < 2


def test_torchscript_needs_no_other_package(checkpoint, tmp_path, capsys):
    output = tmp_path / "new" / "script"
    arguments = [f"checkpoint={checkpoint}", f"output={output}", "format=torchscript"]
    assert main(["export", *arguments]) == 0
    assert "MiB; pixels differ from torch's by up to" in capsys.readouterr().out
    generator, spec = loading.load_backend(output)
    model = load_generator(checkpoint).model
    assert spec == SPEC
    assert compare(generator, model, demo_sample(SPEC, model, 4))[0] <= TOLERANCE
    export_generator(checkpoint, output, "torchscript")  # An earlier export is replaced.
    with pytest.raises(UsageError, match="torchscript, which backend=onnx does not read"):
        loading.load_backend(output, "onnx")
    with pytest.raises(UsageError, match="runs on the CPU in full precision"):
        LipSyncPredictor.from_checkpoint(output, "cpu", "bf16-mixed")


def test_emotions_and_head_turns_are_inputs_of_the_export(tmp_path):
    path = make_checkpoint(tmp_path / "a.safetensors", emotions=["calm", "joy"], head_pose=True)
    export_generator(path, tmp_path / "script", "torchscript")
    model, (generator, _) = load_generator(path).model, loading.load_backend(tmp_path / "script")
    sample = demo_sample(SPEC, model, 4)
    joy, turn = torch.tensor([1]), torch.full((4, 3), 20.0)
    with torch.inference_mode():
        for emotion, head_turn in ((None, None), (joy, turn)):
            expected, made = (
                g.encode_context(sample.masked_face, reference, head_turn).token + reference.token
                for g in (model, generator)
                for reference in [g.encode_reference(sample.face, sample.lips, emotion)]
            )
            assert torch.allclose(expected, made, atol=1e-4)
        told, untold = (
            generator.encode_reference(sample.face, sample.lips, *said).token
            for said in ([joy], [])
        )
    assert not torch.allclose(told, untold, atol=1e-2)


def test_an_export_that_is_off_leaves_nothing(checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr(export, "TOLERANCE", -1.0)
    with pytest.raises(CheckpointError, match=r"pixels differ from torch's by up to .*expected"):
        export_generator(checkpoint, tmp_path / "out", "torchscript")
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_exported_is_an_error(checkpoint, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("years of work")
    for arguments, message in (
        ((tmp_path / "out", "tensorrt"), "format=tensorrt is unknown: choose one of onnx"),
        ((tmp_path / "out", "onnx", "int4"), "quantize=int4 is unknown"),
        ((tmp_path / "out", "torchscript", "int8"), "int8 goes with format=onnx alone"),
        ((tmp_path / "full", "torchscript"), "holds something else"),
    ):
        with pytest.raises(UsageError, match=message):
            export_generator(checkpoint, *arguments)
    with pytest.raises(CheckpointError, match=r"without a readable talkinghead\.json"):
        loading.load_backend(tmp_path / "full")
    with pytest.raises(UsageError, match="backend=tflite is unknown"):
        loading.load_backend(checkpoint, "tflite")


@pytest.mark.parametrize(
    ("format", "package"), [("onnx", r"talkinghead\[export\]"), ("executorch", "executorch")]
)
def test_a_missing_package_is_named(checkpoint, tmp_path, monkeypatch, format, package):
    for module in ("onnx", "executorch", "executorch.exir"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(DependencyError, match=f"pip install '?{package}.*format=torchscript"):
        export_generator(checkpoint, tmp_path / "out", format)


@pytest.mark.parametrize("name", ["onnx", "openvino"])
def test_a_missing_runtime_is_named(script, monkeypatch, name):
    for module in ("onnxruntime", "openvino"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(DependencyError, match=r"pip install 'talkinghead\[export\]'"):
        loading.load_backend(script, name)
