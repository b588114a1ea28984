"""What a prepared corpus holds: `manifest.json`, and the stable splits."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from talkinghead.errors import CorpusError, UsageError
from talkinghead.media.writer import atomic_path
from talkinghead.types import AVSpec

SCHEMA_VERSION = 1
MANIFEST_NAME = "manifest.json"
SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class ClipEntry:
    """One prepared clip.

    `path` is relative to the corpus; `source` and `sha256` name the file it was made from.
    `offset_frames` is by how many frames the source's sound comes late, and `sync_confidence` how
    sure that is, as a sync expert measured them; None where none did. `emotion` is its label, None
    where none was given.
    """

    id: str
    speaker: str
    path: str
    num_frames: int
    duration_s: float
    split: str
    source: str
    sha256: str
    offset_frames: int | None = None
    sync_confidence: float | None = None
    emotion: str | None = None


@dataclass(frozen=True)
class SkippedClip:
    """A source that gave no clip: `reason` can be counted, `detail` is for the reader."""

    source: str
    reason: str
    detail: str


@dataclass(frozen=True)
class Manifest:
    """A corpus: its AVSpec, how it was made, its clips, and the sources that were skipped."""

    spec: AVSpec
    detector: str
    code_version: str
    clips: tuple[ClipEntry, ...]
    skipped: tuple[SkippedClip, ...] = ()

    def split(self, name: str) -> list[ClipEntry]:
        """The clips of split "train", "val" or "test", in the manifest's order."""
        return [clip for clip in self.clips if clip.split == name]

    def save(self, corpus_dir: Path) -> None:
        """Writes `manifest.json`, whole or not at all."""
        values = {
            "schema_version": SCHEMA_VERSION,
            "av": self.spec.to_dict(),
            "detector": self.detector,
            "code_version": self.code_version,
            "clips": [asdict(clip) for clip in self.clips],
            "skipped": [asdict(clip) for clip in self.skipped],
        }
        write_json(corpus_dir / MANIFEST_NAME, values)

    @classmethod
    def load(cls, corpus_dir: Path | str) -> Manifest:
        """Reads the manifest of a prepared corpus.

        Raises:
            CorpusError: there is none, it is broken, or it has another schema.
        """
        path = Path(corpus_dir) / MANIFEST_NAME
        if not path.is_file():
            raise CorpusError(
                f"{corpus_dir} is not a prepared corpus: it has no {MANIFEST_NAME}; "
                f"make one with `talkinghead prepare input=VIDEOS output={corpus_dir}`"
            )
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            version = values["schema_version"]
            if version != SCHEMA_VERSION:
                raise CorpusError(
                    f"{path} has schema version {version}, "
                    f"this code reads {SCHEMA_VERSION}; prepare the corpus again"
                )
            return cls(
                AVSpec.from_dict(values["av"]),
                values["detector"],
                values["code_version"],
                tuple(ClipEntry(**clip) for clip in values["clips"]),
                tuple(SkippedClip(**clip) for clip in values["skipped"]),
            )
        except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError, UsageError) as error:
            raise CorpusError(
                f"{path} is broken ({error!r}); prepare the corpus again, finished clips are kept"
            ) from error

    def require_spec(self, spec: AVSpec, corpus_dir: Path | str) -> None:
        """Refuses a corpus that was prepared for another AVSpec.

        Raises:
            CorpusError: names the fields that differ.
        """
        difference = self.spec.difference(spec)
        if difference:
            raise CorpusError(
                f"{corpus_dir} was prepared with another AVSpec ({difference}, corpus first); "
                "prepare it again with these settings or change the av config"
            )


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Writes JSON atomically, readable by people."""
    with atomic_path(path) as temporary:
        temporary.write_text(
            json.dumps(values, indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
        )


def assign_split(
    clip_id: str,
    speaker: str,
    *,
    val_fraction: float,
    test_fraction: float = 0.0,
    split_by: str = "clip",
    holdout_speakers: Iterable[str] = (),
) -> str:
    """The split of a clip: a pure function of its name, so that added files never move old ones.

    Args:
        clip_id: the clip's id.
        speaker: its speaker.
        val_fraction: expected share of the clips (or speakers) in "val".
        test_fraction: expected share in "test".
        split_by: "clip", or "speaker" to keep all clips of one speaker together.
        holdout_speakers: speakers that always go to "test".

    Returns:
        "train", "val" or "test".
    """
    if speaker in set(holdout_speakers):
        return "test"
    name = speaker if split_by == "speaker" else clip_id
    draw = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") / 2**64
    if draw < val_fraction:
        return "val"
    return "test" if draw < val_fraction + test_fraction else "train"
