"""The loop plays an avatar in real time, and drops images rather than audio when it is behind."""

import time
from fractions import Fraction

import numpy as np
import pytest

from talkinghead.live.avatar_loop import AvatarLoop
from talkinghead.live.live_avatar import LiveFrame


class CountingAvatar:
    """An avatar whose images take a given time to generate."""

    fps = Fraction(25)
    has_next_mouth = False

    def __init__(self, generate_s=0.0):
        self.generate_s, self.num_frames = generate_s, 0
        self.is_speaking = self.is_closed = False

    def next_frame(self):
        time.sleep(self.generate_s)
        return self.skip_image(generated=True)

    def skip_image(self, generated=False):
        number, self.num_frames = self.num_frames, self.num_frames + 1
        image = np.full((2, 2, 3), generated, np.uint8)
        return LiveFrame(image, np.zeros(4), Fraction(number, 25), Fraction(1, 25))

    def close(self):
        self.is_closed = True


@pytest.fixture
def play():
    loops = []

    def start(avatar, duration_s, is_heard=True):
        loop, received = AvatarLoop(avatar), []
        loops.append(loop)
        if is_heard:
            loop.add_listener(lambda frame: received.append((time.monotonic(), frame)))
        loop.start()
        time.sleep(duration_s)
        loop.stop()
        return loop, received

    return start


def test_frames_arrive_in_real_time(play):
    loop, received = play(CountingAvatar(), 1.0)
    times_s = np.array([at_s for at_s, _ in received])
    media_s = np.array([float(frame.time_s) for _, frame in received])
    assert 20 <= len(received) <= 26
    # The wall clock and the avatar's clock agree, apart from the scheduler's delays.
    assert np.median(np.abs((times_s - times_s[0]) - (media_s - media_s[0]))) < 0.02
    assert loop.avatar.is_closed


def test_slow_images_are_dropped_and_the_clock_continues(play):
    loop, received = play(CountingAvatar(generate_s=0.07), 1.5)
    shown = [frame.image.any() for _, frame in received]
    assert 0.3 < np.mean(shown) < 0.8
    assert loop.stats.num_dropped == shown.count(False)
    assert float(received[-1][1].time_s) > 1.0
    assert loop.stats.generate_ms_p50 >= 70


def test_image_whose_mouth_is_known_is_not_dropped(play):
    avatar = CountingAvatar(generate_s=0.07)
    avatar.has_next_mouth = True
    loop, received = play(avatar, 1.0)
    assert loop.stats.max_lag_ms > 80
    assert all(frame.image.any() for _, frame in received)


def test_avatar_pauses_without_listeners_and_speech(play):
    silent, speaking = CountingAvatar(), CountingAvatar()
    speaking.is_speaking = True
    play(silent, 0.3, is_heard=False)
    play(speaking, 0.3, is_heard=False)
    assert silent.num_frames == 0
    assert speaking.num_frames >= 3


def test_failure_of_the_avatar_is_reported(play):
    avatar = CountingAvatar()
    avatar.next_frame = lambda: 1 / 0
    loop, received = play(avatar, 0.1)
    assert isinstance(loop.error, ZeroDivisionError)
    assert received == []
