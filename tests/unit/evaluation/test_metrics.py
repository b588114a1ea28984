"""Metrics on series and images with known values."""

from __future__ import annotations

import math
from collections.abc import Sequence

import kornia
import numpy as np
import pytest
import torch

from talkinghead.evaluation import metrics
from talkinghead.features.mel import MEL_SILENCE
from talkinghead.types import AVSpec, Box, Face, UInt8Array

SPEC = AVSpec()
NAN = float("nan")


class ScriptedDetector:
    """Finds a face in images whose first pixel is not black; its mouth opening is that pixel."""

    topology = "ibug68"

    def __init__(self) -> None:
        self.num_detected = 0

    def detect(self, image: UInt8Array) -> list[Face]:
        self.num_detected += 1
        face = self.track(image, None)
        return [face] if face else []

    def track(self, image: UInt8Array, previous: Face | None) -> Face | None:
        if image[0, 0, 0] == 0:
            return None
        points = np.zeros((68, 2), dtype=np.float32)
        points[45] = (100, 0)
        points[66] = (0, image[0, 0, 0])
        return Face(Box(0, 0, 8, 8), points, 1.0, self.topology)


def images(values: Sequence[int]) -> UInt8Array:
    return np.array(values, dtype=np.uint8)[:, None, None, None] * np.ones((1, 8, 8, 3), np.uint8)


def test_opening_series_is_nan_without_a_face() -> None:
    detector = ScriptedDetector()
    points = metrics.track_landmarks(images([10, 20, 0, 30]), detector)
    opening = metrics.opening_series(points, detector.topology)
    np.testing.assert_allclose(opening, [0.1, 0.2, NAN, 0.3], rtol=1e-6)
    assert detector.num_detected == 3  # At the start, in the frame without a face, and after it.
    no_face = metrics.track_landmarks(images([0, 0]), detector)
    assert np.isnan(metrics.opening_series(no_face, detector.topology)).all()


def test_pearson() -> None:
    time = np.arange(50, dtype=np.float32)
    wave = np.sin(time / 3)
    assert metrics.pearson(wave, 3 * wave - 2) == pytest.approx(1)
    assert metrics.pearson(wave, -wave) == pytest.approx(-1)
    gappy = np.where(time % 7 == 0, NAN, wave)
    assert metrics.pearson(gappy, wave) == pytest.approx(1)
    broken = np.where(time < 25, wave, -wave)
    assert metrics.pearson(broken, wave, mask=time < 25) == pytest.approx(1)
    assert metrics.pearson(broken, wave) < 0.5
    assert math.isnan(metrics.pearson(np.ones(50), wave))
    assert math.isnan(metrics.pearson(wave[:2], wave[:2]))


def test_correlation_of_a_static_mouth_is_zero() -> None:
    wave = np.sin(np.arange(50, dtype=np.float32))
    assert metrics.opening_correlation(wave, wave) == pytest.approx(1)
    assert metrics.opening_correlation(np.full(50, 0.1, np.float32), wave) == 0
    assert math.isnan(metrics.opening_correlation(wave, np.full(50, 0.1, np.float32)))
    assert math.isnan(metrics.opening_correlation(np.full(50, NAN, np.float32), wave))
    assert math.isnan(metrics.opening_correlation(wave, wave, mask=np.zeros(50, dtype=bool)))


def test_relative_opening_is_measured_in_the_real_range() -> None:
    real = np.linspace(0, 1, 101, dtype=np.float32)
    real[0] = NAN
    low, high = 0.0595, 0.9505  # The 5th and the 95th of 0.01, 0.02 ... 1.
    place = {
        v: metrics.relative_opening(np.float32([NAN, v, v, 9]), real) for v in (0.0, low, 0.5, high)
    }
    assert place[low] == pytest.approx(0, abs=1e-6)
    assert place[high] == pytest.approx(1, abs=1e-6)
    assert place[0.5] == pytest.approx((0.5 - low) / (high - low))
    assert place[0.0] < 0
    assert math.isnan(metrics.relative_opening(np.full(3, NAN, np.float32), real))
    assert math.isnan(metrics.relative_opening(real, np.full(3, NAN, np.float32)))
    assert math.isnan(metrics.relative_opening(real, np.full(3, 0.1, np.float32)))


def test_pauses_have_a_minimum_duration() -> None:
    speech = np.array([0] * 6 + [1] * 5 + [0] * 4 + [1] * 5 + [0] * 5, dtype=bool)
    expected = np.zeros(25, dtype=bool)
    expected[:6] = expected[20:] = True
    assert (metrics.pause_frames(speech) == expected).all()


def test_speech_frames() -> None:
    mel = torch.full((80, 240), MEL_SILENCE)
    mel[:, 80:160] = 1.0
    speech = metrics.speech_frames(mel, 75, SPEC.fps, SPEC)
    assert speech[28:47].all()
    assert not speech[:20].any()
    assert not speech[55:].any()
    noisy = mel + 0.3 * torch.rand(80, 240) + 1.0  # A noise floor changes nothing.
    assert (metrics.speech_frames(noisy, 75, SPEC.fps, SPEC) == speech).mean() > 0.95
    silent = torch.full((80, 240), MEL_SILENCE)
    assert not metrics.speech_frames(silent, 75, SPEC.fps, SPEC).any()
    assert metrics.speech_frames(silent + 4, 73, SPEC.fps, SPEC).all()


def test_pixel_scores() -> None:
    torch.manual_seed(0)
    image = torch.rand(2, 3, 48, 48) * 0.8
    assert metrics.l1(image + 0.1, image) == pytest.approx(0.1, abs=1e-6)
    weights = torch.zeros(image.shape[-2:])
    weights[0, 0] = 2.0
    changed = image.clone()
    changed[..., 0, 0] += 0.3
    assert metrics.l1(changed, image, weights) == pytest.approx(0.3, abs=1e-6)
    assert metrics.psnr(image + 0.1, image) == pytest.approx(20, abs=1e-3)
    assert metrics.psnr(image, image) == pytest.approx(100)
    assert metrics.ssim(image, image) == pytest.approx(1, abs=1e-5)
    noisy = metrics.ssim(image + 0.1 * torch.randn_like(image), image)
    assert metrics.ssim(image.flip(-1), image) < noisy < 0.99


def test_psnr_and_ssim_equal_kornia() -> None:
    torch.manual_seed(0)
    a = torch.nn.functional.avg_pool2d(torch.rand(3, 3, 64, 64), 3, 1)
    b = (a + 0.05 * torch.randn_like(a)).clamp(0, 1)
    ssim = kornia.metrics.ssim(a, b, window_size=11).mean()
    assert metrics.ssim(a, b) == pytest.approx(float(ssim), abs=1e-4)
    per_image = [float(kornia.metrics.psnr(x, y, 1.0)) for x, y in zip(a, b, strict=True)]
    assert metrics.psnr(a, b) == pytest.approx(np.mean(per_image), abs=1e-4)


def test_jitter_measures_motion_outside_the_mouth() -> None:
    rng = np.random.default_rng(0)
    box = Box(4, 4, 12, 12)
    real = rng.integers(0, 200, (6, 16, 16, 3)).astype(np.uint8)
    assert metrics.jitter(real, real, box) == 0
    brighter = real + np.uint8(20)
    assert metrics.jitter(brighter, real, box) == 0  # A constant colour offset is not motion.
    mouth = real.copy()
    mouth[:, 4:12, 4:12] = rng.integers(0, 200, (6, 8, 8, 3))
    assert metrics.jitter(mouth, real, box) == 0
    flicker = real.copy()
    flicker[1::2] += 10
    assert metrics.jitter(flicker, real, box) == pytest.approx(10)
    assert math.isnan(metrics.jitter(real[:1], real[:1], box))


def test_sharpness_falls_with_blur_and_ignores_brightness() -> None:
    torch.manual_seed(0)
    image = torch.rand(2, 3, 48, 48) * 0.5
    blurred = torch.nn.functional.avg_pool2d(image, 3, 1)
    assert metrics.sharpness(blurred) < 0.5 * metrics.sharpness(image)
    assert metrics.sharpness(image + 0.3) == pytest.approx(metrics.sharpness(image), rel=1e-3)
    checkers = (torch.arange(8)[:, None] + torch.arange(8)) % 2 * torch.ones(1, 3, 1, 1)
    # The Laplacian of a board of 0 and 255 is +-4 x 255.
    assert metrics.sharpness(checkers) == pytest.approx((4 * 255) ** 2, rel=0.05)


@pytest.mark.parametrize("topology", ["mesh468", "ibug68"])
def test_landmark_distance_is_in_eye_distances(topology: str) -> None:
    eyes = {"mesh468": (33, 263), "ibug68": (36, 45)}[topology]
    rng = np.random.default_rng(0)
    target = rng.normal(size=(4, 468 if topology == "mesh468" else 68, 2)).astype(np.float32)
    target[:, eyes[0]], target[:, eyes[1]] = (0, 0), (50, 0)
    predicted = target.copy()
    predicted[:, list(metrics.MOUTH_POINTS[topology])] += (3, 4)
    predicted[1] = NAN
    assert metrics.landmark_distance(predicted, target, topology) == pytest.approx(0.1, rel=1e-4)
    no_face = np.zeros((4, 0, 2), dtype=np.float32)
    assert math.isnan(metrics.landmark_distance(no_face, target, topology))


@pytest.mark.parametrize("late", [0, 3, -4])
def test_sync_scores_find_the_offset(late: int) -> None:
    rng = np.random.default_rng(0)
    video = rng.normal(size=(80, 16)).astype(np.float32)
    audio = np.roll(video, late, axis=0)  # The frame at t matches the audio at t + late.
    scores = metrics.sync_scores(audio, video)
    assert scores.offset == late
    assert scores.lse_d == pytest.approx(0, abs=1e-4)
    assert scores.lse_c == pytest.approx(np.sqrt(32), rel=0.1)
    assert (scores.distance_at_zero < 1e-4) == (late == 0)


def test_sync_scores_of_unrelated_and_of_short_clips() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 80, 16)).astype(np.float32)
    assert metrics.sync_scores(a, b).lse_c < 0.5
    assert metrics.sync_scores(a[:4], a[:4]).offset == 0


def test_torchmetrics_average_over_clips() -> None:
    wave = torch.sin(torch.arange(50.0))
    correlation = metrics.MouthOpeningCorrelation()
    correlation.update(wave, wave)
    correlation.update(-wave, wave, wave > 0)
    correlation.update(wave, torch.full_like(wave, 0.1))  # NaN: the real mouth does not move.
    assert float(correlation.compute()) == pytest.approx(0)


def test_bootstrap_interval() -> None:
    rng = np.random.default_rng(1)
    values = rng.normal(0.7, 0.1, size=100)
    interval = metrics.bootstrap_interval(np.append(values, NAN))
    half = 1.96 * 0.1 / np.sqrt(100)
    assert interval.num_clips == 100
    assert interval.mean == pytest.approx(values.mean())
    assert interval.high - interval.low == pytest.approx(2 * half, rel=0.25)
    assert interval == metrics.bootstrap_interval(values)
    assert metrics.bootstrap_interval(np.array([NAN])).num_clips == 0


def test_paired_difference_is_more_sensitive_than_means() -> None:
    rng = np.random.default_rng(2)
    clips = rng.normal(0, 1, size=40)  # Clips differ by far more than the systems do.
    ours, theirs = clips + 0.1, clips + rng.normal(0, 0.05, size=40)
    apart = metrics.bootstrap_interval(ours), metrics.bootstrap_interval(theirs)
    assert apart[0].low < apart[1].high
    difference = metrics.paired_difference(ours, theirs)
    assert difference.excludes_zero
    assert difference.mean == pytest.approx(0.1, abs=0.03)
    assert not metrics.paired_difference(clips, clips).excludes_zero
    noise = metrics.paired_difference(clips + rng.normal(0, 0.3, size=40), clips)
    assert noise.low < 0 < noise.high


def test_difference_needs_a_minimum_number_of_clips() -> None:
    assert metrics.bootstrap_interval(np.full(6, 0.2)).excludes_zero
    assert not metrics.bootstrap_interval(np.full(5, 0.2)).excludes_zero
