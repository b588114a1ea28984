"""Music and ambience under the speech of a dubbed video, without the old voice."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, cast

import av
import numpy as np
from av.filter import Graph

from talkinghead.errors import UsageError
from talkinghead.media.audio_decoding import audio_frame, probe_channels, stream_channels, to_planar
from talkinghead.media.reader import probe
from talkinghead.predict.output.voice_mixing import convert_audio
from talkinghead.types import FloatArray

if TYPE_CHECKING:
    from av.audio.frame import AudioFrame
    from av.filter.context import FilterContext

# Voices have no energy below this frequency, so the bass of the centre is kept.
_BASS_HZ = 120


class BackgroundAudio:
    """Background of one dubbed video, in stereo at its own sample rate, which is read once.

    Args:
        path: a file that is used as it is, or a video of which the voice is removed.
        removes_voice: remove the centre of the video's audio (what both channels have in common)
            above 120 Hz, into which voices are mixed.

    Attributes:
        sample_rate: sample rate in Hz.

    Raises:
        MediaError: the file cannot be read or has no audio.
        UsageError: the voice cannot be removed, as the audio is not stereo.

    Example:
        >>> background = BackgroundAudio(Path("music.wav"), removes_voice=False)
        >>> mixed = [background.add_to(chunk) for chunk in stereo_speech]
    """

    def __init__(self, path: Path, removes_voice: bool) -> None:
        self._path, self._removes_voice = path, removes_voice
        self.sample_rate, self._layout = probe_channels(path)
        self._chunks, self._rest = self._read(), np.zeros((2, 0), np.float32)
        if removes_voice and self._layout != "stereo":
            raise UsageError(
                f"background=keep needs a video with stereo audio, {path} has {self._layout}: give "
                "the music without the voice as background=FILE"
            )

    def add_to(self, chunk: FloatArray) -> FloatArray:
        """Return a chunk of audio with the next samples of the background.

        After the end of the background, the chunk is unchanged.

        Args:
            chunk: float32 [2, num_samples] at the sample rate of the background.

        Returns:
            float32 [2, num_samples] in [-1, 1].
        """
        length = chunk.shape[1]
        while self._rest.shape[1] < length and (more := next(self._chunks, None)) is not None:
            self._rest = np.concatenate([self._rest, more], axis=1)
        under, self._rest = self._rest[:, :length], self._rest[:, length:]
        mixed = chunk.copy()
        mixed[:, : under.shape[1]] += under
        return mixed.clip(-1, 1)

    def _read(self) -> Iterator[FloatArray]:
        chunks = convert_audio(
            stream_channels(self._path), self.sample_rate, self._layout, self.sample_rate, "stereo"
        )
        yield from _without_centre(chunks, self.sample_rate) if self._removes_voice else chunks


def find_background(background: str | Path, video: Path | None) -> BackgroundAudio | None:
    """Return the background that the option `background` selects; None for none.

    Raises:
        MediaError: a file cannot be read or has no audio.
        UsageError: the background of a photo or of a video without audio is to be kept, or the
            voice cannot be removed.
    """
    if str(background) == "none":
        return None
    if str(background) != "keep":
        return BackgroundAudio(Path(background), removes_voice=False)
    if video is None or not probe(video).has_audio:
        raise UsageError(
            "background=keep needs a video with audio as the face: give it, or the music as "
            "background=FILE"
        )
    return BackgroundAudio(video, removes_voice=True)


def _without_centre(chunks: Iterable[FloatArray], sample_rate: int) -> Iterator[FloatArray]:
    """Yield stereo chunks without what both channels share, except for its bass."""
    graph = Graph()
    source = graph.add_abuffer(sample_rate=sample_rate, format="flt", layout="stereo")
    split, sides = graph.add("asplit"), graph.add("pan", "stereo|c0=.5*c0-.5*c1|c1=.5*c1-.5*c0")
    centre = graph.add("pan", "stereo|c0=.5*c0+.5*c1|c1=.5*c0+.5*c1")
    bass = graph.add("lowpass", f"f={_BASS_HZ}")
    mix, sink = graph.add("amix", "inputs=2:normalize=0"), graph.add("abuffersink")
    source.link_to(split)
    split.link_to(sides, 0, 0)
    split.link_to(centre, 1, 0)
    centre.link_to(bass)
    sides.link_to(mix, 0, 0)
    bass.link_to(mix, 0, 1)
    mix.link_to(sink)
    graph.configure()
    position = 0
    for chunk in chunks:
        frame = audio_frame(chunk, sample_rate, "stereo")
        frame.pts = position
        position += chunk.shape[1]
        source.push(frame)
        yield from _pulled(sink)
    source.push(None)
    yield from _pulled(sink)


def _pulled(sink: FilterContext) -> Iterator[FloatArray]:
    while True:
        try:
            frame = cast("AudioFrame", sink.pull())
        except (av.error.BlockingIOError, av.error.EOFError):
            return
        yield to_planar(frame)
