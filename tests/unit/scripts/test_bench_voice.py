"""Tests of the voice benchmark."""

import runpy
import time
from pathlib import Path

import numpy as np
import pytest

SCRIPT = runpy.run_path(str(Path(__file__).parents[3] / "scripts" / "bench_voice.py"))


class SlowVoice:
    """A voice that takes `chunk_s` for each of 20 chunks."""

    sample_rate = 16_000

    def __init__(self, chunk_s):
        self.chunk_s = chunk_s

    def speak(self, text, cancel=None):
        for _ in range(20):
            time.sleep(self.chunk_s)
            if cancel is not None and cancel.is_set():
                return
            yield np.zeros(160, np.float32)


def test_first_audio_of_every_reply_is_timed():
    times_s = SCRIPT["measure_callers"](SlowVoice(0.001), 2, 3)
    assert len(times_s) == 6
    assert min(times_s) >= 0.02


@pytest.mark.slow
def test_cancellation_times_start_at_the_cancellation():
    times_s = SCRIPT["measure_cancels"](SlowVoice(0.03), 2, np.random.default_rng(0))
    assert [len(values) for values in times_s.values()] == [2, 2, 4]
    assert max(times_s["cancel to the end of speak"]) < 0.1
    assert min(times_s["next sentence, spoken at once"]) >= 0.6
    with pytest.raises(SystemExit, match="spoken before it was cancelled"):
        SCRIPT["measure_cancels"](SlowVoice(0.0), 1, np.random.default_rng(0))
