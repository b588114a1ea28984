"""ONNX exports in ONNX Runtime and OpenVINO, their cache, quantisation and the example script."""

import json
import runpy
import subprocess
import sys
import wave
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from helpers.small_predictor import HEIGHT, SPEC, WIDTH, Detector, speech

from talkinghead.features.audio_features import AudioFeatures
from talkinghead.media.reader import read_image
from talkinghead.media.writer import write_image
from talkinghead.models.checkpoint import load_generator
from talkinghead.predict.predictor import LipSyncPredictor
from talkinghead.runtime import loading
from talkinghead.runtime.export.exporter import quantise_onnx
from talkinghead.runtime.export.generator_calls import example_inputs
from talkinghead.runtime.export.verification import (
    MAX_PIXEL_DIFFERENCE,
    MIN_PSNR_DB,
    compare,
    demo_sample,
    generate_mouths,
)
from talkinghead.runtime.exported_generator import LIP_HEAD, METADATA, PARTS, ExportedGenerator

EXAMPLE = Path(__file__).parents[3] / "scripts" / "onnx_example.py"
pytestmark = pytest.mark.slow


@pytest.fixture
def model(conditioned_checkpoint):
    return load_generator(conditioned_checkpoint).model.requires_grad_(False)


@pytest.fixture(scope="module")
def exported(conditioned_checkpoint, tmp_path_factory):
    """The ONNX files that `backend=onnx` exports and keeps in the user's cache."""
    for package in ("onnx", "onnxruntime", "onnxscript"):
        pytest.importorskip(package)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield loading.cached_export(conditioned_checkpoint)


@pytest.mark.parametrize("name", ["onnx", "openvino"])
def test_backend_frames_match_torch(conditioned_checkpoint, exported, model, name):
    pytest.importorskip({"onnx": "onnxruntime"}.get(name, name))
    difference, _ = compare(ExportedGenerator(exported, name), model, demo_sample(SPEC, model))
    assert difference <= MAX_PIXEL_DIFFERENCE
    # Use a smooth photo: in white noise, a rounded coordinate changes a pixel by many levels.
    noise = np.random.default_rng(0).standard_normal((HEIGHT, WIDTH, 3)).astype(np.float32)
    photo = (130 + 200 * cv2.GaussianBlur(noise, (0, 0), 3)).clip(40, 255).astype(np.uint8)

    def frames(path, name):
        predictor = LipSyncPredictor.from_checkpoint(
            path, backend=name, detector=Detector(), lip_prior=None
        )
        return np.stack([image for image, _ in predictor.predict(photo, speech(0.5))])

    expected = frames(conditioned_checkpoint, "torch").astype(int)
    assert np.abs(expected - expected[0]).max() > 3
    for path in (conditioned_checkpoint, exported):
        difference = np.abs(expected - frames(path, name))
        assert difference.max() <= 6
        assert difference.mean() < 0.01


def test_checkpoint_is_exported_to_the_cache_once(conditioned_checkpoint, exported):
    before = (exported / METADATA).stat().st_mtime_ns
    assert loading.cached_export(conditioned_checkpoint) == exported
    assert (exported / METADATA).stat().st_mtime_ns == before
    assert [path.name for path in exported.parent.iterdir()] == [exported.name]
    files = {METADATA, LIP_HEAD, *(f"{part}.onnx" for part in PARTS)}
    assert {path.name for path in exported.iterdir()} == files
    metadata = json.loads((exported / METADATA).read_text())
    assert metadata["license"] == "none"
    assert metadata["max_difference"] <= MAX_PIXEL_DIFFERENCE


def test_int8_export_is_close_to_torch(exported, model, tmp_path):
    for path in exported.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    sample = demo_sample(SPEC, model)
    quantise_onnx(tmp_path, example_inputs(model, sample, 3))
    difference, psnr_db = compare(ExportedGenerator(tmp_path, "onnx"), model, sample)
    assert difference > 0
    # A random model loses more than a trained one: its lips move by errors of the activations, and
    # with them the sharp edges of the drawn teeth.
    assert psnr_db > MIN_PSNR_DB - 15


def test_example_script_runs_without_torch(exported, model, tmp_path):
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
    subprocess.run([sys.executable, "-c", code, *map(str, [exported, *files])], check=True)

    example = runpy.run_path(str(EXAMPLE))
    waveform = torch.from_numpy(samples.astype(np.float32) / 32768)
    mel = example["log_mel"](waveform.numpy(), SPEC.to_dict())
    assert np.abs(mel - AudioFeatures(SPEC)(waveform).numpy()).max() < 1e-3
    metadata = json.loads((exported / METADATA).read_text())
    still = replace(
        sample,
        face=torch.from_numpy(pixels).permute(2, 0, 1)[None] / 255,
        masked_face=sample.masked_face[:1].expand(12, -1, -1, -1),
        audio=torch.from_numpy(example["audio_windows"](mel, 12, metadata)),
    )
    expected = generate_mouths(model, still)[1:13].permute(0, 2, 3, 1) * 255
    written = sorted((tmp_path / "mouths").iterdir())
    mouths = np.stack([read_image(path) for path in written])
    assert np.abs(mouths - expected.numpy()).max() < 2
