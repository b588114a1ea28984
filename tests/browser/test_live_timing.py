"""Timing of the live page in headless Chromium: lips and audio, and interruptions."""

from __future__ import annotations

import numpy as np
from helpers.avatar_page import BROWSER_MARKS, SAMPLE_RATE, STORY, loud_times_s, openings

from talkinghead.features.faces.detector import build_detector
from talkinghead.features.faces.mouth_motion import track_landmarks
from talkinghead.predict.options import SourceOptions
from talkinghead.predict.predictor import LipSyncPredictor
from talkinghead.types import AudioClip

pytestmark = BROWSER_MARKS

# A moving head changes the measured opening of the lips, and the file's head is still.
SERVER_OPTIONS = ["motion=none"]
MAX_INTERRUPTION_S, MAX_SKEW_S = 0.3, 0.04
_WINDOW_S = 2.0


def best_shifts(expected, shown, times_s):
    """Return `best_shift` of each window of two seconds, [num_windows, 2]."""
    starts_s = np.arange(times_s[0], times_s[-1] - _WINDOW_S, _WINDOW_S)
    windows = [(times_s >= start_s) & (times_s < start_s + _WINDOW_S) for start_s in starts_s]
    return np.array([best_shift(expected, shown[inside], times_s[inside]) for inside in windows])


def best_shift(expected, shown, times_s):
    """Return the highest correlation of two openings, and the delay of `shown` in seconds.

    Args:
        expected: Openings at 25 frames per second, from time 0.
        shown: Openings at `times_s`.
    """
    grid_s = (np.arange(len(expected)) + 0.5) / 25
    shifts_s = np.arange(-0.2, 0.2, 0.005)
    at_shifts = (np.interp(times_s - shift_s, grid_s, expected) for shift_s in shifts_s)
    correlations = [np.corrcoef(values, shown)[0, 1] for values in at_shifts]
    best = int(np.argmax(correlations))
    return correlations[best], shifts_s[best]


def test_lips_follow_the_received_audio(recorded_page, face_file):
    page = recorded_page
    page.start()
    page.start_recording()
    # The browser needs some seconds to align audio and video.
    page.send(STORY, mode="say")
    page.page.wait_for_selector(".downloads")
    page.record_frames()
    page.send(STORY, mode="say")
    page.wait_for_state("speaking")
    page.wait_for_state("idle")
    recording = page.stop_recording()
    shown = openings(track_landmarks(recording.images, build_detector()))
    clip = AudioClip(recording.face, SAMPLE_RATE)
    predictor = LipSyncPredictor.from_checkpoint()
    rendered = predictor.predict(face_file, clip, SourceOptions(motion="none"))
    images = np.array([image for image, _ in rendered])
    expected = openings(track_landmarks(images, build_detector()))
    # The browser changes the delay of the audio or of the video when packets are late.
    r, skew_s = best_shifts(expected, shown, recording.image_times_s).T
    assert np.median(r) > 0.95
    assert abs(np.median(skew_s)) < MAX_SKEW_S


def test_escape_interrupts_answer(recorded_page):
    page = recorded_page
    page.start()
    closed = openings(page.watch(1)).max()
    page.start_recording()
    page.send(STORY, mode="say")
    page.wait_for_state("speaking")
    page.page.wait_for_timeout(2500)
    page.page.keyboard.press("Escape")
    page.page.wait_for_selector(".message.interrupted")
    page.page.wait_for_timeout(1000)
    recording = page.stop_recording()
    times_s = loud_times_s(recording.face)
    pressed_s = recording.key_times_s[-1]
    assert (times_s < pressed_s).sum() > 20
    assert times_s.max() - pressed_s < MAX_INTERRUPTION_S
    assert openings(page.watch(1)).max() < closed + 0.03


def test_speech_of_user_interrupts_answer(recorded_page):
    page = recorded_page
    page.start()
    page.start_recording()
    page.send(STORY, mode="say")
    page.wait_for_state("speaking")
    page.page.wait_for_timeout(1000)
    page.page.click("#microphone")
    page.record_microphone()
    page.page.wait_for_selector(".message.interrupted")
    page.page.wait_for_timeout(800)
    recording = page.stop_recording()
    started_s = loud_times_s(recording.microphone)[0]
    times_s = loud_times_s(recording.face)
    assert (times_s < started_s).sum() > 20
    assert times_s[times_s < started_s + 1].max() - started_s < MAX_INTERRUPTION_S
