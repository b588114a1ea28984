"""Evaluation as a whole, on clips whose mouths follow the sound by construction."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from helpers.lip_priors import LoudnessLipPrior
from torch import Tensor

from talkinghead.data.clip_file import ClipData, encode_face, write_clip
from talkinghead.data.manifest import ClipEntry, Manifest
from talkinghead.errors import CorpusError, UsageError
from talkinghead.evaluation.audio_dependence import (
    AudioIndependentModelError,
    measure_audio_dependence,
    require_audio_dependence,
)
from talkinghead.evaluation.checkpoint_evaluation import (
    EvaluationOptions,
    choose_clips,
    choose_other,
    evaluate,
)
from talkinghead.evaluation.clip_generation import ClipGenerator
from talkinghead.evaluation.clip_scores import ClipScorer, load_clip
from talkinghead.evaluation.report.clip_visuals import ClipVisuals
from talkinghead.evaluation.report.summary import Scored, drop_unused_visuals
from talkinghead.evaluation.scorers import clip_scorers as judges_module
from talkinghead.evaluation.scorers.clip_scorers import Scorers, embed_windows
from talkinghead.features.audio_features import mel_windows
from talkinghead.features.faces.alignment import as_tensor, masked_face, paste_mouth
from talkinghead.features.mel import MEL_SILENCE
from talkinghead.models.checkpoint import save_release
from talkinghead.models.lipsync.generator import LipSyncGenerator
from talkinghead.models.sync_expert import SyncDiscriminator
from talkinghead.types import AVSpec, Box, Face, FloatArray, UInt8Array

SPEC = AVSpec()
NUM_FRAMES = 40
EYES = 92.0


def draw_mouths(gaps: Tensor) -> Tensor:
    """Grey mouths [T, 3, 96, 96] with a dark bar, `gaps` [T] pixels high."""
    row = torch.arange(96)
    inside = (row - 48).abs()[None, :] < (gaps / 2)[:, None]
    bar = inside[:, None, :, None] & ((row - 48).abs() < 20)
    return torch.where(bar, 0.05, 0.6).expand(-1, 3, -1, -1)


def gaps_of(mel: Tensor, num_frames: int) -> Tensor:
    """What the sound makes of the mouth: its level around each frame, in pixels."""
    return (mel_windows(mel, range(num_frames), SPEC.fps, SPEC).mean(dim=(1, 2)) + 4) * 5


class BarDetector:
    """Measures the dark bar."""

    topology = "ibug68"

    def detect(self, image: UInt8Array) -> list[Face]:
        return [self.track(image, None)]

    def track(self, image: UInt8Array, previous: Face | None) -> Face:
        dark = np.flatnonzero(image[:, 128].mean(axis=1) < 80)
        points = np.zeros((68, 2), dtype=np.float32)
        points[45] = (EYES, 0)
        points[48:68] = (128, 184)
        if len(dark):
            points[62], points[66] = (128, dark[0]), (128, dark[-1] + 1)
        return Face(Box(0, 0, 256, 256), points, 1.0, self.topology)


class BarModel:
    """A generator that draws the bar that it hears; a deaf one draws the same bar always."""

    context_frames, lookahead_frames = 3, 1
    device = torch.device("cpu")

    def __init__(self, deaf: bool = False) -> None:
        self.deaf = deaf
        self.input_features = ("mel",)
        self.contexts: list[Tensor] = []

    def parameters(self):
        yield torch.zeros(1)

    def encode_reference(self, face: Tensor, lips: Tensor) -> SimpleNamespace:
        return SimpleNamespace(token=torch.zeros(1, 1), face=face)

    def encode_context(self, around: Tensor, reference: SimpleNamespace) -> Tensor:
        self.contexts.append(around)
        return around

    def encode_audio(self, windows: Tensor, reference: SimpleNamespace) -> Tensor:
        gaps = (windows.mean(dim=(2, 3)) + 4) * 5
        return torch.full_like(gaps, 12.0) if self.deaf else gaps

    def set_lip_motion(self, tokens: Tensor, lips: Tensor, share: float) -> Tensor:
        told = 10 * (lips[:, 17:20, 1] - lips[:, 13:16, 1]).mean(1)
        return torch.lerp(tokens, told, share)

    def decode(self, tokens: Tensor, reference, context: Tensor) -> SimpleNamespace:
        assert len(tokens) == len(context)
        mouth = draw_mouths(tokens)
        flow, mask = torch.zeros(len(tokens), 2, 48, 48), torch.ones(len(tokens), 1, 96, 96)
        return SimpleNamespace(mouth=mouth, flow=flow, rgb=mouth, mask=mask)


def make_clip(folder: Path, name: str, speaker: str, split: str, seed: int) -> ClipEntry:
    """A clip file: a grey face, syllables in the mel, and the bar that follows them."""
    rng = np.random.default_rng(seed)
    num_mels = int(NUM_FRAMES * 3.2) + 1
    syllables = np.repeat(rng.uniform(-3, 2, 1 + num_mels // 16), 16)[:num_mels]
    syllables[:16] = MEL_SILENCE
    mel = torch.from_numpy(syllables).float().expand(80, -1).half().float()
    gaps = gaps_of(mel, NUM_FRAMES)
    faces = paste_mouth(torch.full((NUM_FRAMES, 3, 256, 256), 0.6), draw_mouths(gaps), SPEC)
    images = (faces * 255).byte().permute(0, 2, 3, 1).numpy()
    path = f"clips/{speaker}/{name}.safetensors"
    data = ClipData(
        [encode_face(image) for image in images],
        mel.numpy(),
        np.zeros((3, num_mels), np.float32),
        np.repeat(gaps.numpy() / 100, 640).astype(np.float32),
        (gaps * 1.5 / EYES).numpy(),
        np.zeros((NUM_FRAMES, 20, 2), np.float32),
        np.tile(np.eye(2, 3, dtype=np.float32), (NUM_FRAMES, 1, 1)),
        images[0].transpose(2, 0, 1).copy(),
        np.zeros((3, 96, 96), np.uint8),
    )
    write_clip(folder / path, data, {})
    seconds = NUM_FRAMES / 25
    return ClipEntry(f"{speaker}/{name}", speaker, path, NUM_FRAMES, seconds, split, "x.mp4", "0")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    names = [("ann", "train"), ("ann", "val"), ("ann", "val"), ("ben", "test"), ("cat", "test")]
    clips = [make_clip(folder, f"c{i}", *pair, seed=i) for i, pair in enumerate(names)]
    Manifest(SPEC, "litert", "1", tuple(clips)).save(folder)
    return folder


def score(corpus: Path, model: BarModel, **options) -> Scored:
    clips = Manifest.load(corpus).split("val")
    scorer = ClipScorer(ClipGenerator(model, SPEC, **options), Scorers(SPEC, BarDetector()))
    real, other = (load_clip(corpus, clip) for clip in clips)
    return scorer.score(real, other)


@pytest.fixture(scope="module")
def lip_prior(corpus: Path) -> Scored:
    return score(corpus, BarModel())


@pytest.fixture(scope="module")
def deaf(corpus: Path) -> Scored:
    return score(corpus, BarModel(deaf=True))


def test_a_model_that_listens(lip_prior: Scored) -> None:
    values = lip_prior.values
    assert values["r_own"] > 0.95
    assert values["r_own_speech"] > 0.9
    assert values["r_ceiling"] > 0.95
    assert values["r_follows_other"] > 0.95
    assert values["r_other"] < 0.7
    assert values["r_elsewhere"] < 0.7
    assert values["l1_ratio"] > 3
    assert values["l1_ratio_elsewhere"] > 3
    assert values["shown_l1_ratio"] > 2
    assert values["shown_l1_own"] < values["shown_l1_reference"] / 2
    assert values["l1_own"] < values["l1_reference"] / 3
    assert values["opening_silence"] == 0
    # The real mouth begins closed: its 5th percentile is a closed mouth's.
    assert values["openness_silence"] == pytest.approx(0, abs=0.1)
    assert values["opening_own"] == pytest.approx(values["opening_real"], abs=0.03)
    assert values["motion_ratio"] == pytest.approx(1, abs=0.1)
    assert values["sharpness_ratio"] > 1  # The bar is drawn crisp; the real one was resampled.
    assert values["ssim"] > 0.9
    assert values["psnr"] > 20
    assert values["lmd"] < 0.01
    assert values["found"] == 1


def test_a_deaf_model_is_found_out(deaf: Scored) -> None:
    values = deaf.values
    assert values["r_own"] == values["r_other"] == 0
    assert values["l1_ratio"] == pytest.approx(1)
    assert values["shown_l1_ratio"] == pytest.approx(1)
    assert values["l1_ratio_speech"] == pytest.approx(1)
    assert values["openness_silence"] > 0.25
    assert values["opening_silence"] == pytest.approx(values["opening_own"])
    assert values["motion_ratio"] == 0


def test_a_deaf_model_hears_what_a_listener_tells_it(corpus: Path) -> None:
    values = score(corpus, BarModel(deaf=True), lip_prior=LoudnessLipPrior()).values
    assert values["r_own"] > 0.9
    assert values["r_other"] < 0.7
    assert values["opening_silence"] == 0


def test_from_another_moment_on_even_the_clips_own_sound_is_wrong(corpus: Path) -> None:
    clip = load_clip(corpus, Manifest.load(corpus).split("val")[0])
    scorer = ClipScorer(ClipGenerator(BarModel(), SPEC), Scorers(SPEC, BarDetector()))
    values = scorer.score(clip, clip).values
    assert values["r_other"] == pytest.approx(values["r_own"])
    assert values["l1_ratio"] == pytest.approx(1)
    assert values["r_elsewhere"] < 0.7
    assert values["l1_ratio_elsewhere"] > 2


def test_what_happens_in_silence_is_left_out_of_the_ratio_on_speech(corpus: Path) -> None:
    clip = load_clip(corpus, Manifest.load(corpus).split("val")[0], max_frames=30)
    # Another sound, which differs in the silence at the clip's beginning alone.
    features = clip.features.clone()
    features[:, :4] = 2.0
    scorer = ClipScorer(ClipGenerator(BarModel(), SPEC), Scorers(SPEC, BarDetector()))
    values = scorer.score(clip, replace(clip, features=features)).values
    for prefix in ("", "lips_"):
        assert values[f"{prefix}l1_ratio"] > 1.2
        assert values[f"{prefix}l1_ratio_speech"] == pytest.approx(1)


def test_what_is_shown_is_the_picture_itself_around_the_mouth(corpus: Path) -> None:
    faces = load_clip(corpus, Manifest.load(corpus).split("val")[0]).faces
    generator = ClipGenerator(BarModel(deaf=True), SPEC)
    # Nowhere are the lips as in the first frame: no other is averaged with it.
    lips = np.arange(len(faces) * 40, dtype=np.float32).reshape(-1, 20, 2)
    encoded = generator.encode(faces, lips)
    shown = generator.speak(encoded, torch.zeros(80, 0)).shown
    x0, y0, x1, y1 = (int(v) for v in SPEC.mouth_box)
    inside = np.zeros(shown.shape[1:3], dtype=bool)
    inside[y0:y1, x0:x1] = True
    assert (shown[:, ~inside] == faces[:, ~inside]).all()
    corner = shown[:, y0 : y0 + 20, x0 : x0 + 20]  # In the box, beyond the outline.
    assert (corner == faces[:, y0 : y0 + 20, x0 : x0 + 20]).all()
    copied = generator.show_reference(encoded)
    assert np.abs(copied[0].astype(int) - faces[0]).max() <= 2


def test_a_deaf_model_fails_loudly(lip_prior: Scored, deaf: Scored) -> None:
    listening = measure_audio_dependence([lip_prior])
    assert listening.is_known
    assert listening.listens
    require_audio_dependence(listening, "last.ckpt")
    listening = measure_audio_dependence([deaf])
    assert listening.is_known
    assert not listening.listens
    with pytest.raises(
        AudioIndependentModelError, match=r"last\.ckpt does not depend on its audio"
    ) as raised:
        require_audio_dependence(listening, "last.ckpt")
    assert "\n" not in str(raised.value)


def test_listening_is_not_known_without_another_sound(caplog: pytest.LogCaptureFixture) -> None:
    listening = measure_audio_dependence([Scored("a", "seen", {}, {"r_own": 0.5})])
    assert not listening.is_known
    assert listening.to_dict()["listens"] is None
    require_audio_dependence(listening, "last.ckpt")
    assert "whether last.ckpt listens is not known" in caplog.text


def test_the_current_mouth_is_never_shown(corpus: Path) -> None:
    entry = Manifest.load(corpus).split("val")[0]
    clip = load_clip(corpus, entry)
    model = BarModel()
    ClipGenerator(model, SPEC).encode(clip.faces, clip.lips)
    seen = torch.cat(model.contexts)
    torch.testing.assert_close(seen, masked_face(as_tensor(clip.faces), SPEC))
    x0, y0, x1, y1 = (int(v) // 2 for v in SPEC.mask_box)
    assert float(seen[..., y0:y1, x0:x1].max()) == 0


def test_a_videos_reference_is_averaged_and_a_stills_is_not(corpus: Path) -> None:
    clip = load_clip(corpus, Manifest.load(corpus).split("val")[0])
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 4, clip.faces.shape)
    faces = np.clip(clip.faces + noise, 0, 255).astype(np.uint8)
    lips = np.broadcast_to(clip.lips[0], clip.lips.shape).copy()
    error = {
        mode: np.abs(
            ClipGenerator(BarModel(), SPEC, mode).encode(faces, lips).reference_face[:100]
            - clip.faces[0, :100].astype(float)
        ).mean()
        for mode in ("video", "still")
    }
    assert error["video"] < 0.5 * error["still"]


def test_still_mode_shows_the_reference_alone(corpus: Path) -> None:
    entry = Manifest.load(corpus).split("val")[0]
    clip = load_clip(corpus, entry, max_frames=30)
    model = BarModel()
    generator = ClipGenerator(model, SPEC, mode="still", reference_frame=7)
    encoded = generator.encode(clip.faces, clip.lips)
    assert (encoded.faces == clip.faces[7]).all()
    assert len(torch.cat(model.contexts)) == 30
    generated = generator.speak(encoded, clip.features)
    torch.testing.assert_close(
        generated.mouths, draw_mouths(gaps_of(clip.features, 30)), rtol=0, atol=1e-4
    )
    with pytest.raises(UsageError, match="video or still"):
        ClipGenerator(model, SPEC, mode="photo")  # type: ignore[arg-type]


def test_sync_windows_pair_the_same_frames(corpus: Path) -> None:
    torch.manual_seed(0)
    expert = SyncDiscriminator(dim=8, image_channels=(8, 8, 8), audio_dim=8).eval()
    mouths = torch.rand(40, 3, 96, 96)
    sound = torch.randn(40, 80, 16)
    heard, seen = embed_windows(expert, mouths, sound)
    assert heard.shape == seen.shape == (36, 8)
    with torch.inference_mode():
        video, audio = expert(mouths[None, 30:35], mouths.mean(0)[None], sound[None, 30:35])
    np.testing.assert_allclose(seen[30], video[0].numpy(), atol=1e-5)
    np.testing.assert_allclose(heard[30], audio[0].numpy(), atol=1e-5)
    clip = load_clip(corpus, Manifest.load(corpus).split("val")[0])
    scorers = Scorers(SPEC, BarDetector(), expert)
    values = ClipScorer(ClipGenerator(BarModel(), SPEC), scorers).score(clip, None).values
    assert {"lse_d", "lse_c", "sync_offset", "real_lse_d", "real_lse_c"} <= set(values)
    assert "r_other" not in values


def entries(*pairs: tuple[str, int]) -> list[ClipEntry]:
    return [
        ClipEntry(f"{speaker}/{i}", speaker, "", 75, 3.0, "val", "", "")
        for speaker, count in pairs
        for i in range(count)
    ]


def test_speakers_take_turns() -> None:
    clips = entries(("a", 50), ("b", 2), ("c", 1))
    chosen = choose_clips(clips, 6)
    assert sorted(c.speaker for c in chosen) == ["a", "a", "a", "b", "b", "c"]
    assert chosen == choose_clips(clips[::-1], 6)
    assert len(choose_clips(clips, None)) == 53


def test_the_other_sound() -> None:
    clips = entries(("a", 3), ("b", 1))
    test = [replace(clip, id=f"t/{clip.id}", split="test") for clip in entries(("d", 1))]
    manifest = Manifest(SPEC, "litert", "1", (*clips, *test))
    for clip in (*clips, *test):
        other = choose_other(clip, manifest)
        assert other is not None
        assert other.id != clip.id
    assert choose_other(clips[0], manifest).speaker == "a"  # type: ignore[union-attr]
    assert choose_other(clips[3], manifest).split == "val"  # type: ignore[union-attr]
    assert choose_other(test[0], Manifest(SPEC, "litert", "1", tuple(test))) is None


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    arguments = {
        "dim": 16,
        "audio_channels": [4, 4, 4, 4],
        "face_encoder": "small",
        "num_layers": 1,
        "num_heads": 2,
        "decoder_channels": [8, 8, 8, 8],
        "context_channels": [4, 4, 4, 4],
    }
    meta = {"generator": arguments, "av": SPEC.to_dict(), "license": "MIT", "trained_on": "nothing"}
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    model = LipSyncGenerator(**arguments)
    # Deaf: it shows the reference, whatever it hears.
    torch.nn.init.zeros_(model.decoder.head.weight)
    save_release(path, "generator", model, meta)
    return path


@pytest.fixture
def bar_detector(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judges_module, "build_detector", lambda name: BarDetector())


@pytest.mark.usefixtures("bar_detector")
def test_evaluate_writes_a_report(corpus: Path, checkpoint: Path, tmp_path: Path) -> None:
    threads = torch.get_num_threads()
    options = EvaluationOptions(max_frames=12, num_strips=1, num_threads=threads, lpips=False)
    # It is deaf, which is said when the report has been written.
    with pytest.raises(AudioIndependentModelError):
        evaluate(checkpoint, corpus, tmp_path / "scores", options)
    assert "It does not listen." in (tmp_path / "scores" / "report.html").read_text()
    text = (tmp_path / "scores" / "scores.json").read_text()
    assert "NaN" not in text
    report = json.loads(text)
    assert report["listening"]["listens"] is False
    seen, unseen = report["groups"]["seen"], report["groups"]["unseen"]
    assert (seen["num_clips"], seen["speakers"]) == (2, ["ann"])
    assert (unseen["num_clips"], unseen["speakers"]) == (2, ["ben", "cat"])
    interval = seen["scores"]["l1_own"]
    assert interval["low"] <= interval["mean"] <= interval["high"]
    for name in ("openness_silence", "l1_ratio_speech", "lips_l1_ratio_speech"):
        assert set(seen["scores"][name]) == {"mean", "low", "high", "num_clips"}
        assert name in report["clips"][0]
        assert f"<code>{name}</code>" in (tmp_path / "scores" / "report.html").read_text()
    # It copies the reference.
    assert interval["mean"] == pytest.approx(seen["scores"]["l1_reference"]["mean"], rel=0.5)
    with (tmp_path / "scores" / "clips.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["id"] for row in rows] == [clip["id"] for clip in report["clips"]]
    assert {row["id"]: row["other_same_speaker"] for row in rows}["ben/c3"] == "False"
    assert float(rows[0]["l1_own"]) == pytest.approx(report["clips"][0]["l1_own"])
    strips = sorted((tmp_path / "scores" / "strips").iterdir())
    assert [path.name.split("_")[0] for path in strips] == ["seen", "seen", "unseen", "unseen"]
    assert cv2.imread(str(strips[0])).shape == (4 * 160, 10 * 176, 3)


@pytest.mark.usefixtures("bar_detector")
def test_whether_a_model_listens_may_be_left_open(
    corpus: Path, checkpoint: Path, tmp_path: Path
) -> None:
    options = EvaluationOptions(
        max_frames=8, max_clips=1, num_strips=0, lpips=False, require_audio_dependence=False
    )
    report = evaluate(checkpoint, corpus, tmp_path, options)
    assert report == json.loads((tmp_path / "scores.json").read_text())
    assert report["listening"]["listens"] is False
    assert not (tmp_path / "strips").exists()


@pytest.mark.usefixtures("bar_detector")
def test_unusable_corpora_are_refused(corpus: Path, checkpoint: Path, tmp_path: Path) -> None:
    manifest = Manifest.load(corpus)
    Manifest(SPEC, "litert", "1", tuple(manifest.split("train"))).save(tmp_path / "bare")
    with pytest.raises(CorpusError, match="no clip in val, test"):
        evaluate(checkpoint, tmp_path / "bare", tmp_path)
    replace(manifest, spec=replace(SPEC, fmax=8000.0)).save(tmp_path / "foreign")
    with pytest.raises(CorpusError, match="fmax"):
        evaluate(checkpoint, tmp_path / "foreign", tmp_path)


@pytest.mark.parametrize(
    "options",
    [
        *({"splits": ["dev"]}, {"splits": []}, {"max_clips": 0}, {"num_strips": -1}),
        *({"num_threads": 0}, {"identity_scale": 0}),
    ],
)
def test_senseless_options(options) -> None:
    with pytest.raises(UsageError):
        EvaluationOptions(**options)


def test_only_what_is_shown_stays_in_memory() -> None:
    visuals = ClipVisuals(np.zeros((2, 2, 3), np.uint8), b"", b"", {}, None)
    values: FloatArray = np.float32([0.1, 0.9, np.nan, 0.5, 0.4])
    clips = [
        Scored(f"a/{number}", "seen", {}, {"r_own_speech": float(value)}, visuals)
        for number, value in enumerate(values)
    ]
    left = drop_unused_visuals(clips, 1)
    assert [clip.visuals is not None for clip in left] == [False, True, True, False, False]
