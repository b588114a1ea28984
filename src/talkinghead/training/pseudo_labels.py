"""Pseudo-labelling of speech recordings with the lip motion that a lip prior predicts.

A generator that is trained on few speakers generalises poorly to other voices. Training also on
recordings of many voices, labelled by a lip prior that was trained on much more speech, transfers
the knowledge of the lip prior to the generator (distillation).

Paper: Hinton, Vinyals and Dean, "Distilling the Knowledge in a Neural Network", 2015,
    arXiv:1503.02531.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import save

from talkinghead.data.clip_file import STORED_FEATURES, ClipFile, read_metadata
from talkinghead.data.manifest import ClipEntry, Manifest, SkippedClip
from talkinghead.errors import CorpusError, MediaError, UsageError
from talkinghead.features.audio_features import AudioFeatures
from talkinghead.media.atomic_file import atomic_path
from talkinghead.media.audio_decoding import read_audio
from talkinghead.paths import check_output_folder
from talkinghead.predict.audio.lip_priors.lip_prior import (
    LipPrior,
    LipPriorStream,
    predict_lip_motion,
)
from talkinghead.progress_bar import track_items
from talkinghead.speech.voice_activity import speech_probabilities
from talkinghead.types import AVSpec, FloatArray
from talkinghead.value_rules import PositiveFloat

logger = logging.getLogger(__name__)

CODE_VERSION = "3"
_MIN_DURATION_S = 1.5
_MIN_SPEECH_FRACTION = 0.1


def pseudo_label(
    input_dir: Path | str,
    output_dir: Path | str,
    spec: AVSpec,
    lip_prior: LipPrior | None,
    spread_px: PositiveFloat = 3.2,
) -> Manifest:
    """Make a corpus of audio features and lip motion, without images, for `data.pseudo_label_dir`.

    The speaker of a file is the name of the top subfolder; for a file in `input_dir` itself, the
    part of the file name before the first "-". If the run is repeated with the same files, settings
    and lip prior, complete speakers are kept.

    Args:
        input_dir: Folder of audio or video files with speech, searched recursively.
        output_dir: Folder of the new corpus.
        spec: AVSpec of the corpus with which the new corpus will be used.
        lip_prior: Lip prior that predicts the lip motion.
        spread_px: Standard deviation of the mouth opening of each speaker, in canonical pixels, to
            which the motion is scaled, because lip priors underestimate it for unseen speakers.

    Returns:
        The manifest that was written.

    Raises:
        UsageError: There is no lip prior, the lip prior has other rates than the AVSpec, or
            `spread_px` is not positive.
        CorpusError: The folder is missing or has no usable file.
        DependencyError: The package faster-whisper, which contains the voice activity detector, is
            not installed.
    """
    if lip_prior is None:
        raise UsageError("pseudo-labels need a lip prior: choose lip_prior=whisper")
    if spread_px <= 0:
        raise UsageError(f"spread_px={spread_px:g}: choose a number above zero")
    input_dir, output_dir = Path(input_dir), check_output_folder(output_dir)
    speakers = _find_speakers(input_dir)
    labeller = _Labeller(input_dir, output_dir, spec, lip_prior, spread_px)
    clips: list[ClipEntry] = []
    skipped: list[SkippedClip] = []
    for name, files in track_items(speakers.items(), "labelling speakers"):
        labelled, refused = labeller.label(name, files)
        clips += labelled
        skipped += refused
    manifest = Manifest(spec, "whisper", CODE_VERSION, tuple(clips), tuple(skipped))
    _report(manifest, input_dir, output_dir)
    manifest.save(output_dir)
    return manifest


def _report(manifest: Manifest, input_dir: Path, output_dir: Path) -> None:
    """Log what was labelled and skipped; raise a CorpusError if no file was labelled."""
    clips, skipped = manifest.clips, manifest.skipped
    counts = Counter(one.reason for one in skipped)
    reasons = ", ".join(f"{count} {reason}" for reason, count in counts.most_common())
    if not clips:
        raise CorpusError(f"{input_dir} has no file with usable speech ({reasons})")
    logger.info(
        "%s: %d clips, %.1f minutes, %d speakers; %d files skipped%s",
        *(output_dir, len(clips), sum(clip.duration_s for clip in clips) / 60),
        *(len({clip.speaker for clip in clips}), len(skipped)),
        f" ({reasons})" if reasons else "",
    )


def _find_speakers(input_dir: Path) -> dict[str, list[Path]]:
    """Return the sorted files of each speaker."""
    if not input_dir.is_dir():
        raise CorpusError(f"input={input_dir} is not a folder: give a folder of recordings")
    speakers: dict[str, list[Path]] = defaultdict(list)
    for path in sorted(input_dir.rglob("*")):
        relative = path.relative_to(input_dir)
        if path.is_file() and not any(part.startswith(".") for part in relative.parts):
            in_folder = len(relative.parts) > 1
            speakers[relative.parts[0] if in_folder else path.stem.split("-")[0]].append(path)
    if not speakers:
        raise CorpusError(f"input={input_dir} is empty: give a folder of recordings")
    return speakers


def _digest(path: Path) -> str:
    """Return the hash of a file; empty if the file cannot be read, which `_read` reports."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""


def _identity(lip_prior: LipPrior) -> str:
    """Return a text that differs for lip priors with other predictions."""
    if identity := getattr(lip_prior, "identity", None):
        return str(identity)
    # Other lip priors are compared by their motion for noise and for silence.
    length = int((lip_prior.past_s + lip_prior.block_s + lip_prior.ahead_s) * lip_prior.sample_rate)
    noise = np.random.default_rng(0).normal(0, 0.1, length)
    windows = np.stack([noise, np.zeros(length)]).astype(np.float32)
    motion = lip_prior.predict_motion(windows, 0).round(2)
    return hashlib.sha256(motion.astype(np.float32).tobytes()).hexdigest()


class _Labeller:
    """A writer of pseudo-labelled clips, one speaker at a time."""

    def __init__(
        self,
        input_dir: Path,
        output_dir: Path,
        spec: AVSpec,
        lip_prior: LipPrior,
        spread_px: PositiveFloat,
    ) -> None:
        LipPriorStream(lip_prior, spec)  # Checks the rates of the lip prior before the work begins.
        self.input_dir, self.output_dir = input_dir, output_dir
        self.spec, self.lip_prior, self.spread_px = spec, lip_prior, spread_px
        self.features = AudioFeatures(spec, STORED_FEATURES)
        self.prior_identity = _identity(lip_prior)

    def label(
        self, speaker: str, files: Sequence[Path]
    ) -> tuple[list[ClipEntry], list[SkippedClip]]:
        """Write the clips of a speaker or reuse earlier ones; return clips and refused files."""
        folder = self.output_dir / "clips" / speaker
        sources = [(self._source(path), _digest(path)) for path in files]
        recipe: list[Any] = [CODE_VERSION, self.spec.to_dict(), self.spread_px, sources]
        recipe.append(self.prior_identity)
        key = hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()
        existing = sorted(folder.glob("*.safetensors"))
        metadata = [read_metadata(path) or {} for path in existing]
        if existing and all(
            (one.get("key"), one.get("num_clips")) == (key, str(len(existing))) for one in metadata
        ):
            refused = [SkippedClip(**one) for one in json.loads(metadata[0]["skipped"])]
            known = zip(existing, metadata, strict=True)
            return [self._entry(speaker, path, one["source"]) for path, one in known], refused
        for path in existing:
            path.unlink()
        recordings, refused = self._read(files)
        motions = []
        for samples in recordings.values():
            num_frames = int(len(samples) * self.spec.fps / self.spec.sample_rate)
            motion = predict_lip_motion(self.lip_prior, samples, self.spec)
            motions.append(motion[:num_frames])
        opening = [m[:, 17:20, 1].mean(1) - m[:, 13:16, 1].mean(1) for m in motions]
        scale = self.spread_px / max(float(np.concatenate(opening).std()), 1e-3) if opening else 1.0
        common = {
            "key": key,
            "num_clips": str(len(motions)),
            "skipped": json.dumps([asdict(one) for one in refused]),
        }
        entries = []
        pairs = zip(recordings.items(), motions, strict=True)
        for number, ((source, samples), motion) in enumerate(pairs):
            path = folder / f"{number:05}.safetensors"
            self._write(path, samples, motion * scale, {**common, "source": source})
            entries.append(self._entry(speaker, path, source))
        return entries, refused

    def _read(self, files: Sequence[Path]) -> tuple[dict[str, FloatArray], list[SkippedClip]]:
        """Return the samples of each usable recording by source, and the refused files."""
        recordings, refused = {}, []
        for path in files:
            source = self._source(path)
            try:
                samples = read_audio(path, self.spec.sample_rate).samples
            except MediaError as error:
                refused.append(SkippedClip(source, "unreadable", str(error)))
                continue
            duration_s = len(samples) / self.spec.sample_rate
            if duration_s < _MIN_DURATION_S:
                detail = f"{duration_s:.1f} s, expected at least {_MIN_DURATION_S} s"
                refused.append(SkippedClip(source, "too short", detail))
                continue
            speech = np.mean([p > 0.5 for _, p in speech_probabilities([samples])])
            if speech < _MIN_SPEECH_FRACTION:
                refused.append(SkippedClip(source, "without speech", f"{speech:.0%} is speech"))
            else:
                recordings[source] = samples
        return recordings, refused

    def _source(self, path: Path) -> str:
        return path.relative_to(self.input_dir).as_posix()

    def _write(
        self, path: Path, samples: FloatArray, motion: FloatArray, metadata: dict[str, str]
    ) -> None:
        features = self.features.split(self.features(torch.from_numpy(samples)))
        tensors: dict[str, Any] = {
            "offsets": np.zeros(len(motion) + 1, np.int64),
            "lip_motion": motion.astype(np.float32),
            **{
                name: np.ascontiguousarray(rows.numpy().astype(np.float16))
                for name, rows in features.items()
            },
        }
        with atomic_path(path) as temporary:
            temporary.write_bytes(save(tensors, metadata))

    def _entry(self, speaker: str, path: Path, source: str) -> ClipEntry:
        num_frames = len(ClipFile(path))
        return ClipEntry(
            id=f"{speaker}/{path.stem}",
            speaker=speaker,
            path=path.relative_to(self.output_dir).as_posix(),
            num_frames=num_frames,
            duration_s=num_frames / float(self.spec.fps),
            split="train",
            source=source,
            sha256="",
        )
