"""Valid and invalid inputs of `talkinghead predict`, and calls of the command."""

import wave
from fractions import Fraction

import av
import numpy as np
import torch
from skimage.data import astronaut

from helpers.small_predictor import GENERATOR
from talkinghead.cli.main import main
from talkinghead.media.writer import VideoWriter, write_image
from talkinghead.models.checkpoint import build, save_release
from talkinghead.types import AVSpec

ARGUMENTS = {**GENERATOR, "num_layers": 2}


def make_files(folder):
    """Write a checkpoint, a face, speech, and broken versions of them."""
    torch.manual_seed(0)
    model = build("generator", ARGUMENTS, AVSpec())
    torch.nn.init.normal_(model.decoder.head.weight, std=0.3)
    meta = {"generator": ARGUMENTS, "av": AVSpec().to_dict(), "license": "", "trained_on": ""}
    save_release(folder / "good.safetensors", "generator", model, meta)
    save_release(folder / "other.safetensors", "generator", model, {**meta, "schema_version": 99})
    content = (folder / "good.safetensors").read_bytes()
    (folder / "cut.safetensors").write_bytes(content[: len(content) // 2])
    write_image(folder / "face.png", np.ascontiguousarray(astronaut()[:256, 100:356]))
    write_image(folder / "wall.png", np.full((200, 200, 3), 128, np.uint8))
    write_speech(folder / "speech.wav", 1.2)
    write_speech(folder / "nothing.wav", 0)
    write_nan(folder / "nan.wav")
    write_video(folder / "silent.mp4", None)
    write_video(folder / "video.mp4", 16_000)
    content = (folder / "video.mp4").read_bytes()
    (folder / "cut.mp4").write_bytes(content[: len(content) * 2 // 3])
    (folder / "text.mp4").write_text("This is not a video.\n" * 50)
    (folder / "empty.mp4").write_bytes(b"")
    (folder / "folder.mp4").mkdir()
    return folder


def write_speech(path, duration_s, rate=16_000, level=8000):
    samples = level * np.random.default_rng(0).standard_normal(round(duration_s * rate))
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, rate, 0, "NONE", ""))
        file.writeframes(samples.clip(-32_000, 32_000).astype("<i2").tobytes())


def write_nan(path):
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_f32le", rate=16_000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.full((1, 8000), np.nan, np.float32), "flt", "mono")
        frame.sample_rate = 16_000
        container.mux(stream.encode(frame))


def write_video(path, sample_rate):
    face = np.ascontiguousarray(astronaut()[:256, 100:356])
    with VideoWriter(path, 256, 256, Fraction(30), sample_rate, preset="ultrafast") as writer:
        for number in range(24):
            writer.write(np.roll(face, number // 4, axis=1))
        if sample_rate:
            writer.write_audio(np.full(round(0.8 * sample_rate), 0.1, np.float32))


def predict(files, *overrides, **keys):
    given = {"checkpoint": "good.safetensors", "face": "face.png", "audio": "speech.wav", **keys}
    paths = {key: value and files / value for key, value in given.items()}
    arguments = [f"{key}={value}" for key, value in paths.items() if value]
    return main(["predict", *arguments, *overrides])


def messages(capfd):
    """Return the lines of the program on stderr, without those of the detector library."""
    lines = capfd.readouterr().err.splitlines()
    return [line for line in lines if line.startswith("talkinghead")]
