"""Manifest of a prepared corpus."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from talkinghead.errors import CorpusError, UsageError
from talkinghead.media.atomic_file import atomic_path
from talkinghead.types import GENERATOR_FIELDS, AVSpec

SCHEMA_VERSION = 1
MANIFEST_NAME = "manifest.json"
SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class ClipEntry:
    """Entry of a prepared clip in the manifest.

    Attributes:
        path: Path of the clip file, relative to the corpus.
        source: Path of the source video, relative to the input folder.
        sha256: Hash of the source video.
        offset_frames: Delay of the audio of the source video in frames, as measured by a sync
            expert or a lip prior; None if it was not measured.
        sync_confidence: LSE-C of the sync expert, or correlation of the lip prior.
        emotion: Emotion label, or None.
    """

    id: str
    speaker: str
    path: str
    num_frames: int
    duration_s: float
    split: str
    source: str
    sha256: str
    offset_frames: float | None = None
    sync_confidence: float | None = None
    emotion: str | None = None


@dataclass(frozen=True)
class SkippedClip:
    """Entry of a source video without a clip; `reason` is a category, `detail` a message."""

    source: str
    reason: str
    detail: str


def require_manifest(corpus_dir: Path | str) -> Path:
    """Return the path of the manifest of a prepared corpus.

    Raises:
        CorpusError: The folder has none.
    """
    path = Path(corpus_dir) / MANIFEST_NAME
    if not path.is_file():
        raise CorpusError(
            f"{corpus_dir} is not a prepared corpus: it has no {MANIFEST_NAME}; "
            f"make one with `talkinghead prepare input=VIDEOS output={corpus_dir}`"
        )
    return path


@dataclass(frozen=True)
class Manifest:
    """Content of a corpus; `split_options` has the fields of `SplitOptions`, None if unknown."""

    spec: AVSpec
    detector: str
    code_version: str
    clips: tuple[ClipEntry, ...]
    skipped: tuple[SkippedClip, ...] = ()
    split_options: Mapping[str, Any] | None = None

    def split(self, name: str) -> list[ClipEntry]:
        """Return the clips of split "train", "val" or "test", in the manifest's order."""
        return [clip for clip in self.clips if clip.split == name]

    def save(self, corpus_dir: Path) -> None:
        """Write `manifest.json` atomically."""
        values = {
            "schema_version": SCHEMA_VERSION,
            "av": self.spec.to_dict(),
            "detector": self.detector,
            "code_version": self.code_version,
            "split_options": self.split_options,
            "clips": [asdict(clip) for clip in self.clips],
            "skipped": [asdict(clip) for clip in self.skipped],
        }
        write_json(corpus_dir / MANIFEST_NAME, values)

    @classmethod
    def load(cls, corpus_dir: Path | str) -> Manifest:
        """Load the manifest of a prepared corpus.

        Raises:
            CorpusError: The manifest is missing, broken or of another schema.
        """
        path = require_manifest(corpus_dir)
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            if (version := values["schema_version"]) != SCHEMA_VERSION:
                raise CorpusError(
                    f"{path} has schema version {version}, this version reads {SCHEMA_VERSION}; "
                    "run `talkinghead prepare` again"
                )
            return cls(
                AVSpec.from_dict(values["av"]),
                values["detector"],
                values["code_version"],
                tuple(ClipEntry(**clip) for clip in values["clips"]),
                tuple(SkippedClip(**clip) for clip in values["skipped"]),
                values.get("split_options"),
            )
        except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError, UsageError) as error:
            raise CorpusError(
                f"{path} is broken ({error!r}); run `talkinghead prepare` again, it keeps what is "
                "finished"
            ) from error

    def require_spec(self, spec: AVSpec, corpus_dir: Path | str) -> None:
        """Raise a `CorpusError` if the corpus was prepared for another AVSpec."""
        if difference := self.spec.difference(spec, GENERATOR_FIELDS):
            raise CorpusError(
                f"{corpus_dir} was prepared with another AVSpec ({difference}, corpus first); "
                "run `talkinghead prepare` again with these settings, or change the av config"
            )


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Write indented JSON atomically."""
    text = json.dumps(values, indent=1, ensure_ascii=False) + "\n"
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:  # File names may have bytes that are not text.
            text = json.dumps(values, indent=1) + "\n"
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
