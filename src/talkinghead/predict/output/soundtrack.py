"""The audio of an output: that of the speech's file, with all channels at its own sample rate.

The audio of several faces is mixed.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from fractions import Fraction
from functools import cached_property
from pathlib import Path

import av
import numpy as np

from talkinghead.media.audio_decoding import probe_channels, stream_channels
from talkinghead.media.encoding.output_formats import OutputFormat
from talkinghead.media.encoding.stream_copy import CopiedStreams, copied_audio
from talkinghead.media.reader import probe
from talkinghead.media.timing import samples_to_seconds, seconds_to_samples
from talkinghead.media.writer import OutputWriter
from talkinghead.predict.audio.audio_source import Speech, SpeechInput, SpeechInputs, list_speeches
from talkinghead.predict.output.background_audio import BackgroundAudio
from talkinghead.predict.output.voice_mixing import (
    AudioFormat,
    convert_audio,
    mix_voices,
    mixed_format,
)
from talkinghead.types import FloatArray

log = logging.getLogger(__name__)


class Soundtrack:
    """The audio track of an output.

    A file's audio keeps its channels and its sample rate; only the model gets mono speech. If the
    format supports the file's codec, the audio is copied without encoding.

    Args:
        audio: the speech as it was given, or a list with that of each face, which is mixed.
        speeches: the same speech, opened.
        output: the format of the output.
        is_padded: silence follows the speech, so that the audio cannot be copied.
        background: audio under the speech, in stereo; None for none.

    Attributes:
        sample_rate: sample rate in Hz.
        layout: FFmpeg's name of the channel layout.
        copied: the audio to be copied; None if it is encoded.
        background: audio that a `SoundtrackWriter` adds to the speech and to the silence after it.

    Raises:
        MediaError: a file cannot be read.
    """

    def __init__(
        self,
        audio: SpeechInputs,
        speeches: Sequence[Speech],
        output: OutputFormat,
        is_padded: bool,
        background: BackgroundAudio | None = None,
    ) -> None:
        self.background = background
        self._voices = [
            _Voice(*voice) for voice in zip(list_speeches(audio), speeches, strict=True)
        ]
        self.copied: CopiedStreams | None = None
        first = self._voices[0]
        is_alone = len(self._voices) == 1 and background is None
        if first.path is not None and output.has_audio and is_alone and not is_padded:
            self.copied = copied_audio(first.path, output)
        self.sample_rate, self.layout = first.sample_rate, "mono"
        if self.copied is None:
            self.sample_rate, self.layout = mixed_format([v.file_format for v in self._voices])
        self._speech_format = self.sample_rate, self.layout
        if background is not None:
            self.sample_rate, self.layout = background.sample_rate, "stereo"

    @property
    def num_channels(self) -> int:
        """Number of channels."""
        return int(av.AudioLayout(self.layout).nb_channels)

    def chunks(self) -> SoundtrackChunks:
        """Return the speech in chunks, float32 [num_channels, num_samples]; none if copied.

        Reading of a stream begins with this call, because no reader can be added later.
        """
        if self.copied is not None:
            return SoundtrackChunks(iter(()))
        voices = [SoundtrackChunks(voice.chunks()) for voice in self._voices]
        chunks = voices[0]
        if len(voices) > 1:
            formats = [voice.file_format for voice in self._voices]
            chunks = SoundtrackChunks(mix_voices(voices, formats), *voices)
        if self.background is None:
            return chunks
        own = self.sample_rate, self.layout
        return SoundtrackChunks(convert_audio(chunks, *self._speech_format, *own), chunks)


class _Voice:
    """The audio of one face.

    Attributes:
        path: the file; None for speech in memory and for streams.
        sample_rate: sample rate of the speech in Hz.
    """

    def __init__(self, audio: SpeechInput, speech: Speech) -> None:
        self._speech, self.sample_rate = speech, speech.sample_rate
        self.path = Path(audio) if isinstance(audio, str | Path) else None
        if self.path is not None:
            _report_choice(self.path)

    @cached_property
    def file_format(self) -> AudioFormat:
        """Sample rate in Hz and layout of the audio."""
        return (self.sample_rate, "mono") if self.path is None else probe_channels(self.path)

    def chunks(self) -> Iterator[FloatArray]:
        """Return the samples in chunks, float32 [channels, num_samples] or, if mono, [num_samples].

        Reading of a stream begins with this call, because no reader can be added later.
        """
        if self.path is not None:
            return stream_channels(self.path)
        return self._speech.chunks(self.sample_rate)


class SoundtrackChunks(Iterator[FloatArray]):
    """Chunks [num_channels, num_samples] of a soundtrack; mono chunks [num_samples] get a row.

    The sources are closed together with the chunks.
    """

    def __init__(self, chunks: Iterator[FloatArray], *sources: SoundtrackChunks) -> None:
        self._chunks, self._sources = chunks, sources

    def __next__(self) -> FloatArray:
        return np.atleast_2d(next(self._chunks))

    def close(self) -> None:
        """Stop reading the audio; nothing need have been read before."""
        close = getattr(self._chunks, "close", None)
        if close is not None:
            close()
        for source in self._sources:
            source.close()


def _report_choice(path: Path) -> None:
    """Log which audio track is used if a file has several."""
    info = probe(path)
    if info.num_audio_tracks > 1:
        log.warning(
            "%s: has %d audio tracks; the default one, track %d, is used; mark another track as "
            "default to use it",
            *(path, info.num_audio_tracks, info.audio_track + 1),
        )


class SoundtrackWriter:
    """A writer of a soundtrack slightly ahead of the frames, for players with small buffers.

    Args:
        writer: the writer of the output.
        soundtrack: the audio.
        chunks: the chunks of the soundtrack.
    """

    def __init__(
        self, writer: OutputWriter, soundtrack: Soundtrack, chunks: Iterator[FloatArray]
    ) -> None:
        self._writer, self._soundtrack, self._chunks = writer, soundtrack, chunks
        self._num_samples = 0

    @property
    def duration_s(self) -> Fraction:
        """Duration of the audio so far, or of the copied audio, in seconds."""
        copied = self._soundtrack.copied
        if copied is not None and copied.end_s is not None:
            return copied.end_s
        return samples_to_seconds(self._num_samples, self._soundtrack.sample_rate)

    def write_until(self, time_s: Fraction | None) -> None:
        """Write the audio up to a time, or all that remains if the time is None."""
        while time_s is None or self.duration_s <= time_s:
            chunk = next(self._chunks, None)
            if chunk is None:
                return
            self._write(chunk)

    def pad_until(self, time_s: Fraction) -> None:
        """Write silence, with the background, up to a time if the audio ends before that time."""
        missing = seconds_to_samples(time_s, self._soundtrack.sample_rate) - self._num_samples
        if missing > 0:
            self._write(np.zeros((self._soundtrack.num_channels, missing), np.float32))

    def _write(self, chunk: FloatArray) -> None:
        background = self._soundtrack.background
        self._writer.write_audio(background.add_to(chunk) if background else chunk)
        self._num_samples += chunk.shape[1]
