"""Write the frames and the audio of a prediction to a file, interleaved."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from fractions import Fraction
from pathlib import Path

from talkinghead.errors import UsageError
from talkinghead.media.encoding.output_formats import is_numbered, output_format
from talkinghead.media.encoding.stream_copy import KeptContent, kept_content
from talkinghead.media.reader import is_image
from talkinghead.media.timing import num_frames_for
from talkinghead.media.writer import OutputWriter, open_writer
from talkinghead.predict.audio.audio_source import (
    Speech,
    SpeechInputs,
    longest_duration_s,
    read_speeches,
)
from talkinghead.predict.output.background_audio import find_background
from talkinghead.predict.output.label import Label
from talkinghead.predict.output.provenance import Provenance
from talkinghead.predict.output.soundtrack import Soundtrack, SoundtrackWriter
from talkinghead.predict.prediction import Prediction, RenderReport
from talkinghead.types import EncodeOptions

Progress = Callable[[int, int], None]
"""Callback that takes the number of written frames and the number of all frames (0: unknown)."""


def write_prediction(
    prediction: Prediction,
    audio: SpeechInputs,
    output: Path,
    *,
    encode: EncodeOptions,
    provenance: Provenance,
    tags: Mapping[str, str],
    progress: Progress | None = None,
    video: Path | None = None,
) -> RenderReport:
    """Write a prediction and its audio to a file.

    Args:
        prediction: the frames.
        audio: the speech of the prediction, or a list with that of each face, which is mixed.
        output: the file; its suffix selects the format.
        encode: options of the encoder.
        provenance: marks of AI generation.
        tags: further metadata.
        progress: called after each frame.
        video: the source, if it is a video whose other tracks may be kept.
    """
    speeches, target = read_speeches(audio), output_format(output)
    background = find_background(encode.background, video) if target.has_audio else None
    soundtrack = Soundtrack(audio, speeches, target, prediction.video_s is not None, background)
    kept = kept_content(video, target) if video and encode.keep_tracks else KeptContent()
    writer = open_writer(
        output,
        prediction.width,
        prediction.height,
        prediction.fps,
        soundtrack.sample_rate,
        layout=soundtrack.layout,
        crf=encode.crf,
        preset=encode.preset,
        pix_fmt=encode.pix_fmt,
        encoder=encode.encoder,
        metadata=_joined_tags(kept.metadata, provenance.tags, tags),
        colour=prediction.colour,
        hdr=prediction.hdr if encode.hdr == "keep" else None,
        seal=provenance.seal,
        audio=soundtrack.copied,
        kept=kept,
    )
    with writer:
        draw = Label(provenance.label, writer.width, writer.height) if provenance.label else None
        duration_s = _write_frames(prediction, speeches, soundtrack, writer, progress, draw)
    counts = prediction.num_frames, prediction.num_frames_without_face
    return RenderReport(output, *counts, duration_s, prediction.fps)


def _joined_tags(
    kept: Mapping[str, str], marks: Mapping[str, str], tags: Mapping[str, str]
) -> dict[str, str]:
    """Return the tags of an output, with the comments of the video and of the marks joined."""
    comments = [one["comment"] for one in (kept, marks) if one.get("comment")]
    comment = {"comment": "; ".join(comments)} if comments else {}
    return {**marks, **comment, **tags}


def _write_frames(
    prediction: Prediction,
    speeches: Sequence[Speech],
    soundtrack: Soundtrack,
    writer: OutputWriter,
    progress: Progress | None,
    label: Label | None,
) -> Fraction:
    """Encode frames and audio as they arrive, and return the duration of the audio in seconds.

    If `prediction.video_s` is set, the audio is padded with silence to the end of the video.
    """
    total, video_s = 0, prediction.video_s
    if (speech_s := longest_duration_s(speeches)) is not None:
        longest_s = max(speech_s, video_s or Fraction(0))
        total = num_frames_for(longest_s, prediction.fps)
    end_s = Fraction(0)
    with closing(soundtrack.chunks()) as chunks:
        track = SoundtrackWriter(writer, soundtrack, chunks)
        for image, time_s in prediction.patched():
            track.write_until(time_s)
            if video_s is not None:
                track.pad_until(time_s)
            end_s = time_s + 1 / prediction.fps
            writer.write(label.draw(image) if label else image, time_s)
            if progress:
                progress(prediction.num_frames, total)
        track.write_until(None)
        if video_s is not None:
            track.pad_until(end_s)
    return track.duration_s


def source_video(face: object) -> Path | None:
    """Return the path of a face that is a video file; None for other faces."""
    return Path(face) if isinstance(face, str | Path) and not is_image(face) else None


def check_output(output: Path, provenance: Provenance, *inputs: object) -> None:
    """Check the name of an output before any work.

    Raises:
        UsageError: the format cannot be written or signed, or the output is also an input.
    """
    provenance.check(output, output_format(output))
    refuse_overwriting(output, *inputs)


def refuse_overwriting(output: Path, *inputs: object) -> None:
    """Raise `UsageError` if the output, or an image of a sequence, is the same file as an input."""
    is_sequence = output_format(output).video_codec == "image"
    for path in (Path(given) for given in inputs if isinstance(given, str | Path)):
        if is_sequence:
            is_input = any(is_numbered(output, place) for place in (path, path.resolve()))
        else:
            is_input = output.exists() and path.exists() and output.samefile(path)
        if is_input:
            raise UsageError(
                f"output={output}: the input {path} would be overwritten: choose another name"
            )
