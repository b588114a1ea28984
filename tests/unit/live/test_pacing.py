"""Frames are released in time with the audio, on a simulated clock."""

from fractions import Fraction

import numpy as np
import pytest

from talkinghead.errors import UsageError
from talkinghead.live.pacing import AudioClock, FramePacer
from talkinghead.live.streaming import RealtimeFrame


class SimulatedClock:
    """Time that passes only during sleep and work; each sleep is a little too long."""

    def __init__(self, oversleep_s=1e-6):
        self.now_s, self.oversleep_s = 100.0, oversleep_s

    def __call__(self):
        return self.now_s

    def sleep(self, duration_s):
        assert duration_s > 0
        self.now_s += duration_s + self.oversleep_s


def frames(count, work=lambda number: None, fps=25):
    for number in range(count):
        work(number)
        yield RealtimeFrame(np.zeros((2, 2, 3), np.uint8), Fraction(number, fps))


def test_timing_errors_do_not_accumulate():
    wall = SimulatedClock(oversleep_s=0.003)
    clock = AudioClock(0.4, wall)
    pacer = FramePacer(clock, wall.sleep)
    delays_s = [clock() - float(frame.time_s) for frame in pacer.release(frames(15_000))]
    assert delays_s == pytest.approx([0.003] * 15_000)
    assert (pacer.num_released, pacer.num_late) == (15_000, 0)
    assert pacer.last_delay_s == pytest.approx(0.003)


def test_late_frames_are_released_immediately_and_counted():
    wall = SimulatedClock()

    def work(number):
        wall.now_s += 0.2 if number == 10 else 0.01

    clock = AudioClock(0.1, wall)
    pacer = FramePacer(clock, wall.sleep)
    delays_s = [clock() - float(f.time_s) for f in pacer.release(frames(50, work))]
    # Frame 10 takes 160 ms longer than available; each later frame recovers 30 ms.
    assert pacer.num_late == sum(delay_s > 1e-3 for delay_s in delays_s) == 6
    assert pacer.max_delay_s == pytest.approx(0.16, abs=1e-4)
    assert delays_s[10:16] == pytest.approx([0.16, 0.13, 0.10, 0.07, 0.04, 0.01], abs=1e-4)
    assert delays_s[16:] == pytest.approx([0.0] * 34, abs=1e-4)


def test_frames_wait_while_playback_stalls():
    wall = SimulatedClock()
    clock = AudioClock(0.0, wall)

    def stalling_playback():
        """Stop for a second after one second of speech, as with a stalled network."""
        return clock() if clock() < 1 else max(1.0, clock() - 1)

    for frame in FramePacer(stalling_playback, wall.sleep).release(frames(60)):
        assert stalling_playback() == pytest.approx(float(frame.time_s), abs=1e-4)
    assert wall.now_s == pytest.approx(100 + 59 / 25 + 1, abs=1e-2)


def test_second_caller_of_a_pacer_is_refused():
    pacer = FramePacer(lambda: now[0], lambda _: attempt())
    now = [0.0]

    def attempt():
        now[0] = 1.0
        with pytest.raises(UsageError, match="pacer is in use by another caller"):
            pacer.wait(2.0)

    pacer.wait(1.0)
    assert pacer.num_released == 1
