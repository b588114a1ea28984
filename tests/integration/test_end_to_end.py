"""From raw videos to a generated video: prepare, train, resume, predict."""

from __future__ import annotations

import contextlib
import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.media_files import write_wav
from helpers.small_predictor import STILL
from helpers.tiny_training import SMALL_RUN

from talkinghead.cli.main import main
from talkinghead.features.faces.detector import build_detector
from talkinghead.media.reader import probe, read_audio, read_image
from talkinghead.media.writer import VideoWriter, write_image
from talkinghead.paths import DEMO_SPEECH, demo_face
from talkinghead.predict.predictor import LipSyncPredictor
from talkinghead.training.modules.lipsync_gan import LipSyncGANModule
from talkinghead.types import AudioClip

TINY = [
    *("experiment=smoke", "data=corpus", *SMALL_RUN),
    *("model.max_iterations=2", "callbacks.preview=null"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make videos of a moving photo with speech, prepare them and train for two iterations."""
    folder = tmp_path_factory.mktemp("whole")
    photo, speech = read_image(demo_face())[:256], read_audio(DEMO_SPEECH, 16_000)
    write_image(folder / "photo.png", photo[:, 96:352])
    write_wav(folder / "speech.wav", AudioClip(speech.samples[8000:16_000], 16_000))
    for number in range(2):
        path = folder / "videos" / "anna" / f"{number}.mp4"
        with VideoWriter(path, 256, 256, Fraction(25), 16_000, preset="ultrafast") as writer:
            writer.write_audio(speech.samples[6400 * number :][: 6 * 3200])
            for frame in range(30):
                shift = 86 + abs((frame + 5 * number) % 20 - 10)
                writer.write(np.ascontiguousarray(photo[:, shift : shift + 256]))
    assert main(["prepare", f"input={folder / 'videos'}", f"output={folder / 'corpus'}",
                 "val_fraction=0.5", "workers=0"]) == 0  # fmt: skip
    assert main(["train", *TINY, f"data.corpus_dir={folder / 'corpus'}",
                 f"hydra.run.dir={folder / 'run'}"]) == 0  # fmt: skip
    return folder


def test_prepare_train_and_predict_write_files(folder: Path) -> None:
    manifest = json.loads((folder / "corpus" / "manifest.json").read_text())
    assert sorted(clip["split"] for clip in manifest["clips"]) == ["train", "val"]
    metrics = json.loads((folder / "run" / "metrics.json").read_text())
    assert 0 < metrics["val/l1"] < 1
    checkpoint, output = folder / "run/checkpoints/last.ckpt", folder / "new" / "talking.mp4"
    given = [f"face={folder / 'photo.png'}", f"audio={folder / 'speech.wav'}"]
    assert main(["predict", *given, f"output={output}", f"checkpoint={checkpoint}"]) == 0
    info = probe(output)
    assert abs(info.duration_s - Fraction(1, 2)) <= Fraction(1, 25)
    assert (info.width, info.height, info.fps) == (256, 256, 25)
    assert info.has_audio


def test_loaded_checkpoint_predicts_frames_of_training_module(folder: Path) -> None:
    checkpoint = folder / "run/checkpoints/last.ckpt"
    content: dict[str, Any] = torch.load(checkpoint, weights_only=True)
    module = LipSyncGANModule(
        av=content["av"],
        generator=content["generator"],
        discriminator={"channels": [8, 16, 24, 32]},
        loss={"weights": {}},
        optimizer={},
        discriminator_optimizer={},
    )
    module.load_state_dict(content["state_dict"], strict=False)
    detector = build_detector("litert")
    predictors = [
        LipSyncPredictor(module.ema.network, module.spec, detector=detector, lip_prior=None),  # type: ignore[arg-type]
        LipSyncPredictor.from_checkpoint(checkpoint, detector=detector, lip_prior=None),
    ]
    speech = read_audio(folder / "speech.wav", 16_000)
    for predictor in predictors:
        predictor.model.eval()
    first, second = (p.predict(folder / "photo.png", speech, STILL) for p in predictors)
    with first, second:
        for _ in range(10):
            assert np.array_equal(next(first)[0], next(second)[0])


@pytest.mark.slow
def test_resumed_run_continues_in_same_folder(folder: Path) -> None:
    def run(max_iterations: int, *more: str) -> None:
        options = [*TINY, "logger=tensorboard", f"data.corpus_dir={folder / 'corpus'}"]
        arguments = [*options, f"model.max_iterations={max_iterations}", "name=resumed", *more]
        assert main(["train", *arguments]) == 0

    with contextlib.chdir(folder):
        run(2)
        run(4, "ckpt_path=last")
        (run_dir,) = (folder / "outputs" / "train" / "resumed").iterdir()
    saved = torch.load(run_dir / "checkpoints" / "last.ckpt", weights_only=True)
    assert saved["iteration"] == 4
    assert len(list((run_dir / "tensorboard").glob("events*"))) == 2
