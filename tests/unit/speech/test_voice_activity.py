"""Voice activity detection on a stream, and splitting into utterances."""

import numpy as np
import pytest

from talkinghead.speech import voice_activity as va

pytest.importorskip("faster_whisper", reason="needs the detector of faster-whisper")


def _pieces(samples, size=1600):
    return np.split(samples, range(size, len(samples), size))


def test_probabilities_do_not_depend_on_chunks(speech):
    from faster_whisper.vad import get_vad_model

    padded = np.pad(speech, (0, -len(speech) % va.WINDOW_SIZE))
    expected = get_vad_model()(padded.copy())
    cuts = np.cumsum([1, 700, 90, 5000] * 20)
    windows = list(va.speech_probabilities(np.split(speech, cuts)))
    np.testing.assert_allclose([p for _, p in windows], expected, atol=1e-5)
    np.testing.assert_array_equal(np.concatenate([window for window, _ in windows]), padded)


def test_utterances_contain_all_speech_with_start_times(speech):
    found = list(va.stream_utterances(_pieces(speech), va.SAMPLE_RATE, min_silence_s=0.3))
    assert len(found) == 3
    loud = np.abs(speech) > 0.02
    for utterance in found:
        start = round(utterance.start_s * va.SAMPLE_RATE)
        stop = start + len(utterance.samples)
        np.testing.assert_array_equal(utterance.samples[: len(speech) - start], speech[start:stop])
        loud[start:stop] = False
    assert not loud.any()


def test_speech_without_pauses_is_split_at_the_maximum_length(speech):
    sentence = speech[26_112:74_752]
    endless = (sentence for _ in range(20))
    found = list(va.stream_utterances(endless, va.SAMPLE_RATE, min_silence_s=1.0, max_s=5.0))
    lengths_s = [len(u.samples) / va.SAMPLE_RATE for u in found]
    assert len(found) > 10
    assert max(lengths_s) <= 5.0
    assert min(lengths_s[:-1]) >= 2.4
    ends_s = [u.start_s + length for u, length in zip(found, lengths_s, strict=True)]
    assert ends_s[:-1] == pytest.approx([u.start_s for u in found[1:]])


def test_start_times_are_right_after_a_split_in_a_pause():
    """The maximum length is reached during a pause whose quietest window is not its last."""
    loud, quiet = (np.ones(va.WINDOW_SIZE, np.float32), 1.0), (np.zeros(va.WINDOW_SIZE), 0.1)
    stream = [loud] * 40 + [quiet] * 12 + [(quiet[0], 0.05)] + [quiet] * 40 + [loud] * 40
    found = list(va._split(stream, min_silence=62, max_windows=60))
    begin = va.WINDOW_SIZE / va.SAMPLE_RATE
    first, second = (u for u in found if u.samples.any())
    assert first.start_s == 0
    loud_s = second.start_s + np.argmax(second.samples > 0) / va.SAMPLE_RATE
    assert loud_s == pytest.approx(93 * begin)


@pytest.mark.parametrize("noise", [0.0, 0.02])
def test_silence_and_noise_have_no_utterances(noise):
    samples = np.random.default_rng(0).normal(0, noise, 5 * va.SAMPLE_RATE).astype(np.float32)
    assert list(va.stream_utterances(_pieces(samples), va.SAMPLE_RATE)) == []
    assert list(va.stream_utterances([], va.SAMPLE_RATE)) == []
