from __future__ import annotations

from talkinghead.predict.source.head.expression.emotion_track import EmotionTrack
from talkinghead.predict.source.head.expression.emotions import Emotion

HAPPY, SAD = Emotion("happy"), Emotion("sad")


def test_emotion_lasts_until_the_next_one():
    track = EmotionTrack()
    assert track.at(5.0) is None
    track.add(HAPPY, 1.0)
    track.add(None, 1.5)
    track.add(SAD, 2.0)
    assert [track.at(t) for t in (0.5, 1.0, 1.9, 2.0, 100.0)] == [None, HAPPY, HAPPY, SAD, SAD]
    track.clear()
    assert track.at(5.0) is None


def test_memory_of_a_long_stream_is_bounded():
    track = EmotionTrack()
    for second in range(600):
        track.add(HAPPY if second % 2 else SAD, float(second))
        track.drop_before(float(second))
    assert len(track._changes) == 1
    assert track.at(600.0) == HAPPY
