"""An endless stream of an avatar that speaks pushed audio and shows idle frames otherwise."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from talkinghead.errors import UsageError
from talkinghead.live.reply_speech import ReplySpeech, SpeechPreparer
from talkinghead.media.audio_samples import to_mono_float32
from talkinghead.media.timing import seconds_to_samples
from talkinghead.predict.audio.phonemes import TimedSpeech
from talkinghead.predict.avatar import Avatar
from talkinghead.predict.compositing.stabiliser import MouthFields
from talkinghead.predict.mouth_generator import GeneratedFrame
from talkinghead.predict.output.label import Label
from talkinghead.predict.source.head.photo_animation import HeadControls
from talkinghead.predict.source.source_frame import SourceFrame
from talkinghead.types import FloatArray, UInt8Array

# Speech that stops arriving for longer than this ends the reply.
_MAX_GAP_S = 0.5
# Number of frames in which the mouth closes when the speech is interrupted or missing.
_CLOSING_FRAMES = 4
# Silence from which the tokens of an idle mouth are computed.
_IDLE_SILENCE_S = 0.5
# Images whose mouths are generated together during speech.
_BATCH_IMAGES = 2


class LiveFrame(NamedTuple):
    """A frame of a live avatar, with the audio to be played while it is shown.

    Attributes:
        image: uint8 [H, W, 3] RGB.
        audio: float32 [num_samples] in [-1, 1], as long as the frame; zeros between replies.
        time_s: Start time on the avatar's clock, which never stops.
        duration_s: Duration of the frame.
        reply: Number of the reply that is spoken; None between replies.
        reply_time_s: Time in the speech of the reply.
        is_reply_end: The frame is the last one of a reply.
    """

    image: UInt8Array
    audio: FloatArray
    time_s: Fraction
    duration_s: Fraction
    reply: int | None = None
    reply_time_s: Fraction | None = None
    is_reply_end: bool = False


class LiveAvatar:
    """An endless stream of frames and audio of an avatar, for calls and live pages.

    Speech is pushed as it becomes available, faster or slower than real time. Text to speech that
    is ahead of its playback has no look-ahead delay: the first frame is ready as soon as the speech
    that it needs has been pushed. Replies are played one after another. If the speech of a reply
    does not arrive in time, the mouth closes and the reply continues later; after half a second
    without speech, the reply ends.

    All methods except `next_frame`, `skip_image` and `has_next_mouth` may be called from any
    thread; those three are called by one thread, such as `AvatarLoop`.

    Args:
        avatar: The avatar.
        sample_rate: Sample rate of the returned audio in Hz.
        label: Visible text in every image, such as "AI generated"; None for none.

    Attributes:
        width, height: Size of the images in pixels.
        fps: Nominal frame rate.
        controls: Emotion, and pose of the heads in a photo, which may be changed at any time.

    Example:
        >>> avatar = predictor.avatar("photo.jpg")
        >>> live = LiveAvatar(avatar)
        >>> for chunk in voice.speak_timed("Hello."):
        ...     live.push(chunk, voice.sample_rate)
        >>> live.finish()
        >>> frame = live.next_frame()  # every 1 / live.fps seconds
    """

    def __init__(self, avatar: Avatar, sample_rate: int = 48_000, label: str | None = None) -> None:
        self.avatar, self.sample_rate = avatar, sample_rate
        source, predictor = avatar.source, avatar.predictor
        self.width, self.height, self.fps = source.width, source.height, source.fps
        self.controls = HeadControls()
        self._label = Label(label, self.width, self.height) if label else None
        self._lock = threading.Lock()
        self._replies: deque[ReplySpeech] = deque()
        self._num_replies = 0
        self._speech = SpeechPreparer(predictor, sample_rate)
        self._compositor = predictor.compositor()
        self._frames = source.play()
        self._images: deque[list[SourceFrame]] = deque()  # The faces of the next images.
        self._idle = predictor.mouth_generator()
        self._idle.tokens.push(_silence(_IDLE_SILENCE_S, predictor.spec.sample_rate))
        self._idle.tokens.finish()
        self._idle_key: list[tuple[int, int]] = []
        self._idle_fields: list[MouthFields | None] = []
        self._articulation = self._idle.articulation
        self._openness = 0.0  # Scale of the lip motion, which closes the mouth gradually.
        self._image: UInt8Array | None = None

    @classmethod
    def warmed_up(cls, avatar: Avatar, sample_rate: int, label: str | None = None) -> LiveAvatar:
        """Return a live avatar whose first frame, which takes the longest, is already generated."""
        live = cls(avatar, sample_rate, label)
        try:
            live.next_frame()
        except BaseException:
            live.close()
            raise
        return live

    def push(self, audio: NDArray[Any] | TimedSpeech, sample_rate: int) -> int:
        """Append speech to the last reply, or start a reply if the last one is finished.

        Args:
            audio: Mono samples, float in [-1, 1] or int16, of any length; or the same with
                phonemes, as `speak_timed` of a voice yields them.
            sample_rate: Sample rate in Hz; it must not change within a reply.

        Returns:
            The number of the reply, counted from 0.

        Raises:
            MediaError: The audio has another type, shape or range.
            UsageError: The avatar is closed, or the sample rate has changed.
        """
        timed = audio if isinstance(audio, TimedSpeech) else TimedSpeech(audio)
        samples = to_mono_float32(timed.samples)
        with self._lock:
            if not self._replies or self._replies[-1].is_finished:
                reply = self._speech.start_reply(self._num_replies, sample_rate)
                self._replies.append(reply)
                self._num_replies += 1
            reply = self._replies[-1]
            if reply.source_rate != sample_rate:
                raise UsageError(
                    f"speech at {sample_rate} Hz was pushed to a reply at {reply.source_rate} Hz: "
                    "call finish() between them"
                )
            reply.push(samples, timed.phonemes, timed.emotion)
            return reply.number

    def finish(self) -> None:
        """End the speech of the last reply; the next `push` starts another one."""
        with self._lock:
            if self._replies:
                self._replies[-1].finish()

    def interrupt(self) -> None:
        """Drop all speech: the audio fades within 20 ms and the mouth closes within 0.16 s."""
        with self._lock:
            for reply in self._replies:
                reply.interrupt()
            while len(self._replies) > 1:
                self._replies.pop()

    @property
    def is_speaking(self) -> bool:
        """Whether speech is being played or waits to be played."""
        with self._lock:
            return bool(self._replies)

    @property
    def has_next_mouth(self) -> bool:
        """Whether the next image takes less time, as its mouth was generated with the last one."""
        with self._lock:
            reply = self._replies[0] if self._replies else None
        return reply is not None and bool(self._images) and reply.has_mouths(self._images[0])

    def next_frame(self) -> LiveFrame:
        """Generate the next frame; the caller controls the timing."""
        return self._advance(is_generated=True)

    def skip_image(self) -> LiveFrame:
        """Return the next frame's audio with the last image, which takes almost no time."""
        return self._advance(is_generated=self._image is None)

    def close(self) -> None:
        """Release the threads and buffers; the avatar stays usable."""
        self._speech.close()
        self._frames.close()

    def _advance(self, is_generated: bool) -> LiveFrame:
        self._speech.raise_error()
        images = self._upcoming_images()
        faces = images[0]
        time_s, duration_s = faces[0].time_s, faces[0].duration_s
        rate = self.sample_rate
        size = seconds_to_samples(time_s + duration_s, rate) - seconds_to_samples(time_s, rate)
        with self._lock:
            reply = self._replies[0] if self._replies else None
        if reply is None:
            image = self._generate(images, None) if is_generated else self._image
            assert image is not None
            return LiveFrame(image, np.zeros(size, np.float32), time_s, duration_s)
        audio = reply.take(size, duration_s)
        self._update_openness(reply, is_missing=audio is None)
        image = self._generate(images, reply) if is_generated else self._image
        assert image is not None
        reply_time_s = reply.time_s
        if audio is not None:
            reply.time_s += duration_s
        is_end = self._has_ended(reply, duration_s if audio is None else Fraction(0))
        if is_end:
            with self._lock:
                self._replies.popleft()
        audio = np.zeros(size, np.float32) if audio is None else audio
        is_shown = reply.time_s > 0 or is_end
        shown = (reply.number, reply_time_s, is_end) if is_shown else (None, None, False)
        return LiveFrame(image, audio, time_s, duration_s, *shown)

    def _upcoming_images(self) -> list[list[SourceFrame]]:
        """Return the faces of the next image, which is thereby used, and of the following ones."""
        while len(self._images) < _BATCH_IMAGES:
            self._images.append(list(self._next_faces()))
        images = list(self._images)
        self._images.popleft()
        return images

    def _next_faces(self) -> Iterator[SourceFrame]:
        for frame in self._frames:
            yield frame
            if frame.is_last:
                return

    def _update_openness(self, reply: ReplySpeech, is_missing: bool) -> None:
        if reply.is_interrupted or is_missing:
            self._openness = max(0.0, self._openness - 1 / _CLOSING_FRAMES)
        elif reply.time_s == 0:
            self._openness = 1.0  # The speech begins with a closed mouth.
        else:
            self._openness = min(1.0, self._openness + 1 / _CLOSING_FRAMES)

    def _has_ended(self, reply: ReplySpeech, missing_s: Fraction) -> bool:
        is_missing = missing_s > 0 and reply.is_starved
        reply.missing_s = reply.missing_s + missing_s if is_missing else Fraction(0)
        if reply.is_interrupted:
            return self._openness == 0
        if reply.missing_s > _MAX_GAP_S and reply.time_s > 0:
            with self._lock:
                reply.finish()
        return reply.is_played

    def _generate(self, images: list[list[SourceFrame]], reply: ReplySpeech | None) -> UInt8Array:
        faces = images[0]
        if reply is not None and self._openness > 0:
            # A mouth that closes has another articulation in each frame.
            batch = images if self._openness == 1 else images[:1]
            generated = reply.generate(batch, self._articulation * self._openness)
        else:
            generated = list(self._generate_idle(faces))
        image: UInt8Array | None = None
        for frame, mouth in zip(faces, generated, strict=True):
            # The compositor's filters follow the avatar's clock, not the time of the speech.
            mouth.source = replace(mouth.source, time_s=frame.time_s)
            mouth.cue = mouth.cue.controlled(self.controls)
            image, _ = self._compositor.composite(mouth)
        assert image is not None
        self._image = image = self._label(image) if self._label else image
        return image

    def _generate_idle(self, faces: list[SourceFrame]) -> Iterator[GeneratedFrame]:
        """Generate closed mouths; those of a photo are always the same and are generated once."""
        key = [(id(frame.reference), id(frame.context)) for frame in faces]
        if self._idle_key != key or any(frame.context is None for frame in faces):
            self._idle_key = key
            self._idle_fields = [frame.fields for frame in self._idle.generate(faces)]
        yield from map(GeneratedFrame, faces, self._idle_fields)


def _silence(duration_s: float, sample_rate: int) -> FloatArray:
    return np.zeros(round(duration_s * sample_rate), np.float32)
