"""Containers and codecs of output files, selected by the suffix of the file name."""

from __future__ import annotations

import re
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path

from talkinghead.errors import UsageError

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg"})
_NUMBER_PATTERN = re.compile(r"%(0\d+)?d")


@dataclass(frozen=True)
class OutputFormat:
    """A container with its codecs.

    Attributes:
        muxer: FFmpeg's name of the container; "image2" for an image sequence.
        video_codec: family of the video codec: "h264", "vp9", "gif" or "image".
        audio_codec: FFmpeg's encoder for audio that is not copied; None if there is no audio.
        copied_audio: codecs whose packets are copied without encoding, because the container
            supports them and its usual players decode them.
        copied_subtitles: codecs of subtitles that the container supports.
        text_subtitles: codec to which other text subtitles are converted; None for none.
        mime_type: media type of the file.
        tags: names of the tags that the container supports; None for all names.
    """

    muxer: str
    video_codec: str
    audio_codec: str | None = None
    copied_audio: AbstractSet[str] = frozenset()
    copied_subtitles: AbstractSet[str] = frozenset()
    text_subtitles: str | None = None
    mime_type: str = "application/octet-stream"
    tags: AbstractSet[str] | None = None

    @property
    def has_audio(self) -> bool:
        """Whether the container has audio."""
        return self.audio_codec is not None

    def supported_tags(self, tags: Mapping[str, str]) -> dict[str, str]:
        """Return tags that the container supports; others are in the comment as `key=value`."""
        if self.tags is None:
            return dict(tags)
        known = {key: str(value) for key, value in tags.items() if key in self.tags}
        others = [f"{key}={value}" for key, value in tags.items() if key not in self.tags]
        if others:
            known["comment"] = "; ".join([*filter(None, [known.get("comment")]), *others])
        return known


_PCM = {f"pcm_{kind}" for kind in ("s16le", "s24le", "s32le")}
_SUBTITLES = {"subrip", "ass", "webvtt", "hdmv_pgs_subtitle", "dvd_subtitle"}
_MP4_TAGS = {
    *("title", "artist", "album_artist", "composer", "album", "date", "comment", "genre"),
    *("copyright", "grouping", "description", "synopsis", "show", "lyrics", "keywords"),
    "encoding_tool",
}
_MP4 = OutputFormat(
    "mp4",
    "h264",
    "aac",
    frozenset({"aac", "mp3"}),
    frozenset({"mov_text"}),
    "mov_text",
    "video/mp4",
    _MP4_TAGS,
)
_FORMATS = {
    ".mp4": _MP4,
    ".m4v": _MP4,
    "": _MP4,
    ".mov": OutputFormat(
        "mov",
        "h264",
        "aac",
        frozenset({"aac", "mp3", "alac", *_PCM}),
        frozenset({"mov_text"}),
        "mov_text",
        "video/quicktime",
        _MP4_TAGS,
    ),
    ".mkv": OutputFormat(
        "matroska",
        "h264",
        "aac",
        frozenset({"aac", "mp3", "flac", "opus", "vorbis", "ac3", "eac3", *_PCM}),
        frozenset(_SUBTITLES),
        "subrip",
        "video/x-matroska",
    ),
    ".webm": OutputFormat(
        "webm",
        "vp9",
        "libopus",
        frozenset({"opus", "vorbis"}),
        frozenset({"webvtt"}),
        "webvtt",
        "video/webm",
    ),
    ".gif": OutputFormat("gif", "gif", mime_type="image/gif", tags={"comment"}),
}
_SEQUENCE = OutputFormat("image2", "image", tags={"comment"})


def output_format(path: Path | str) -> OutputFormat:
    """Return the format of an output file by its suffix; a name without a suffix is MP4.

    Raises:
        UsageError: the suffix is unknown, or an image sequence has no number in its name.

    Example:
        >>> output_format("talking.webm").video_codec
        'vp9'
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix in _FORMATS:
        return _FORMATS[suffix]
    if suffix in IMAGE_SUFFIXES:
        if len(_NUMBER_PATTERN.findall(path.name)) == 1 and path.name.count("%") == 1:
            return _SEQUENCE
        raise UsageError(
            f"output={path} names no image sequence: give a name with exactly one number, such "
            f"as {path.stem.replace('%', '')}_%05d{suffix}, for a video one that ends in .mp4"
        )
    names = ", ".join(name for name in _FORMATS if name)
    raise UsageError(
        f"output={path}: the format {suffix or 'without a suffix'} cannot be written: give a name "
        f"that ends in {names}, or NAME_%05d.png for images; write .mp4 if in doubt"
    )


def numbered_path(pattern: Path, number: int) -> Path:
    """Return the path of one image of a sequence; `pattern` contains `%d` or `%05d`."""
    name = _NUMBER_PATTERN.sub(lambda match: match[0] % number, pattern.name)
    return pattern.with_name(name)


def is_numbered(pattern: Path, path: Path) -> bool:
    """Return whether a path is that of an image of a sequence, which may not exist yet."""
    number = _NUMBER_PATTERN.search(pattern.name)
    if number is None or path.parent.resolve() != pattern.parent.resolve():
        return False
    before, after = pattern.name[: number.start()], pattern.name[number.end() :]
    found = re.fullmatch(rf"{re.escape(before)}(\d+){re.escape(after)}", path.name)
    return found is not None and numbered_path(pattern, max(1, int(found[1]))).name == path.name
