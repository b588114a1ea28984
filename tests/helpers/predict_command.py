"""Valid and invalid inputs of `talkinghead predict`, and calls of the command."""

from fractions import Fraction

import numpy as np
import torch
from skimage.data import astronaut

from helpers.media_files import write_media, write_wav
from helpers.small_predictor import GENERATOR
from talkinghead.cli.main import main
from talkinghead.media.writer import VideoWriter, write_image
from talkinghead.models.checkpoint import build, save_release
from talkinghead.types import AudioClip, AVSpec

ARGUMENTS = {**GENERATOR, "num_layers": 2}


def write_checkpoint(path):
    """Write a checkpoint of a small generator with random weights."""
    torch.manual_seed(0)
    model = build("generator", ARGUMENTS, AVSpec())
    torch.nn.init.normal_(model.decoder.head.weight, std=0.3)
    meta = {"generator": ARGUMENTS, "av": AVSpec().to_dict(), "license": "", "trained_on": ""}
    save_release(path, "generator", model, meta)


def make_files(folder):
    """Write valid and invalid files with checkpoints, faces and speech."""
    write_checkpoint(folder / "good.safetensors")
    write_image(folder / "face.png", np.ascontiguousarray(astronaut()[:256, 100:356]))
    write_image(folder / "wall.png", np.full((200, 200, 3), 128, np.uint8))
    write_speech(folder / "speech.wav", 1.2)
    write_speech(folder / "nothing.wav", 0)
    nan = np.full((1, 8000), np.nan, np.float32)
    write_media(folder / "nan.wav", audio=nan, audio_codec="pcm_f32le", audio_format="flt")
    write_video(folder / "silent.mp4", None)
    write_video(folder / "video.mp4", 16_000)
    content = (folder / "video.mp4").read_bytes()
    (folder / "cut.mp4").write_bytes(content[: len(content) * 2 // 3])
    return folder


def write_speech(path, duration_s):
    samples = 0.25 * np.random.default_rng(0).standard_normal(round(duration_s * 16_000))
    write_wav(path, AudioClip(samples.clip(-1, 1).astype(np.float32), 16_000))


def write_video(path, sample_rate):
    face = np.ascontiguousarray(astronaut()[:256, 100:356])
    with VideoWriter(path, 256, 256, Fraction(30), sample_rate, preset="ultrafast") as writer:
        for number in range(24):
            writer.write(np.roll(face, number // 4, axis=1))
        if sample_rate:
            writer.write_audio(np.full(round(0.8 * sample_rate), 0.1, np.float32))


def predict(files, *overrides, **keys):
    """Run the command without a lip prior; the head of a photo is still unless it is moved."""
    given = {"checkpoint": "good.safetensors", "face": "face.png", "audio": "speech.wav", **keys}
    paths = {key: value and files / value for key, value in given.items()}
    arguments = [f"{key}={value}" for key, value in paths.items() if value]
    if not any(override.startswith("lip_prior") for override in overrides):
        overrides = ("lip_prior=none", *overrides)
    return main(["predict", *arguments, "motion=none", *overrides])


def messages(capfd):
    """Return the lines of the program on stderr, without lines of the detector library."""
    lines = capfd.readouterr().err.splitlines()
    return [line for line in lines if line.startswith("talkinghead")]
