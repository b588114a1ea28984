"""Datasets whose items are windows of prepared clips."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from talkinghead.data.clip_file import ClipFeatureReader, ClipFile
from talkinghead.data.data_options import SamplingOptions, WindowOptions
from talkinghead.data.manifest import ClipEntry, Manifest
from talkinghead.data.window_sampling import clip_probabilities, make_rng, spread_windows
from talkinghead.errors import CorpusError
from talkinghead.features.faces.alignment import lip_motion, lips_at
from talkinghead.features.faces.head_pose import head_turn
from talkinghead.media.timing import frame_time_s, mel_window_start, seconds_to_samples
from talkinghead.types import FloatArray, UInt8Array

_CLIP_STREAM, _WINDOW_STREAM, _PSEUDO_LABEL_STREAM = 0, 1, 3
_NEGATIVE_MIN_SHIFT = 5
"""Minimum shift in frames of negative audio that comes from the same clip."""
_OPEN_QUANTILE = 0.85


class ClipDataset(Dataset[dict[str, Any]]):
    """A dataset of unlimited random windows of a split.

    The item with number `index` depends only on the seed and on `index`.

    Args:
        corpus_dir: A prepared corpus.
        split: "train", "val" or "test".
        windows: Content of a window.
        sampling: Distribution of the windows over the clips.

    Attributes:
        pseudo_labels: Dataset whose windows, with audio and lip motion only, are added to the
            items.
        open_clip: Function that opens a clip by its path in the manifest, for corpora that are not
            in a folder.

    Raises:
        CorpusError: The corpus is missing or broken, no clip of the split is long enough, or a clip
            has none of the emotion labels.

    Example:
        >>> dataset = ClipDataset("corpora/mine", "train", WindowOptions(num_frames=5))
        >>> dataset[0]["faces"].shape
        torch.Size([5, 3, 256, 256])
    """

    def __init__(
        self,
        corpus_dir: Path | str,
        split: str = "train",
        windows: WindowOptions | None = None,
        sampling: SamplingOptions | None = None,
    ) -> None:
        self.windows, sampling = windows or WindowOptions(), sampling or SamplingOptions()
        self.corpus_dir = Path(corpus_dir)
        manifest = Manifest.load(corpus_dir)
        self.spec = manifest.spec
        self.clips = _long_clips(manifest, split, self.windows, corpus_dir)
        self.pseudo_labels: PseudoLabelDataset | None = None
        self.open_clip: Callable[[str], ClipFile] | None = None
        self.windows_per_clip = sampling.windows_per_clip
        self._features = ClipFeatureReader(self.spec, self.windows.audio_features)
        last_frame_s = frame_time_s(len(self._frames(0)) - 1, self.spec.fps)
        self._num_mels = math.ceil(last_frame_s * self.spec.mels_per_second) + self.spec.mel_window
        speakers, weights = [clip.speaker for clip in self.clips], sampling.speaker_weights
        self._cumulative = np.cumsum(clip_probabilities(speakers, weights, sampling.temperature))

    def open(self, clip_index: int) -> ClipFile:
        """Open a clip's file."""
        path = self.clips[clip_index].path
        return self.open_clip(path) if self.open_clip else ClipFile(self.corpus_dir / path)

    def audio(self, clip_index: int, start: int) -> Tensor:
        """Return the audio of the target frames, float32 [N], with silence after the clip."""
        samples = self.open(clip_index).audio()
        begin, end = (
            seconds_to_samples(frame_time_s(frame, self.spec.fps), self.spec.sample_rate)
            for frame in (start, start + self.windows.num_frames)
        )
        part = torch.from_numpy(samples[begin:end])
        return torch.nn.functional.pad(part, (0, end - begin - len(part)))

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return a window of T target frames and W frames of audio.

        Returns:
            - reference_face uint8 [3, face, face]; faces uint8 [T, 3, face, face]; mean_face uint8
              [3, face, face]
            - mel float32 [rows, L], the audio features of all frames, with silence outside the
              clip; mel_negative, the same for audio that does not belong to the frames
            - window_starts int64 [W], the first column in `mel` of each frame's window
            - lips float32 [W, 20, 2], lip motion (see `lip_motion`), NaN outside the clip
            - lip_points float32 [T, 20, 2] and reference_lips float32 [20, 2], in canonical pixels
            - index, clip_index and start int; clip (its id) and speaker str
            - depending on the options, emotion int; head_turn float32 [T, 3] in degrees (see
              `head_turn`); and the entries of a `PseudoLabelDataset`.
        """
        rng = make_rng(self.windows.seed, _WINDOW_STREAM, index)
        clip_index, start = self._draw_window(index)
        clip = self.open(clip_index)
        opening, lips = clip.tensor("mouth_opening"), clip.tensor("lips")
        if start is None:
            start = self._draw_start(opening, rng)
        reference = self._draw_reference(opening, start, rng)
        targets, frames = slice(start, start + self.windows.num_frames), self._frames(start)
        return {
            "reference_face": _to_chw(clip.faces(reference, reference + 1))[0],
            "faces": _to_chw(clip.faces(targets.start, targets.stop)),
            "mean_face": torch.from_numpy(clip.tensor("mean_face")),
            "mel": self._segment(clip, start),
            "mel_negative": self._negative(clip, clip_index, start, rng),
            "window_starts": self._window_starts(frames),
            "lips": _pad_with_nan(lip_motion(lips), frames),
            "reference_lips": torch.from_numpy(lips_at(lips, reference)),
            "lip_points": torch.from_numpy(lips[targets].astype(np.float32)),
            "index": index,
            "clip_index": clip_index,
            "start": start,
            "clip": self.clips[clip_index].id,
            "speaker": self.clips[clip_index].speaker,
            **({} if self.pseudo_labels is None else self.pseudo_labels[index]),
            **self._conditions(clip, clip_index, targets, reference),
        }

    def _conditions(
        self, clip: ClipFile, clip_index: int, targets: slice, reference: int
    ) -> dict[str, Any]:
        conditions: dict[str, Any] = {}
        if self.windows.emotions:
            emotion = str(self.clips[clip_index].emotion)
            conditions["emotion"] = list(self.windows.emotions).index(emotion)
        if self.windows.head_pose:
            poses = clip.tensor("head_pose")
            conditions["head_turn"] = torch.from_numpy(head_turn(poses[targets], poses[reference]))
        return conditions

    def _draw_window(self, index: int) -> tuple[int, int | None]:
        """Return the clip index of an item and its first frame; None for a random frame."""
        rng = make_rng(self.windows.seed, _CLIP_STREAM, index // self.windows_per_clip)
        return self._draw_clip(rng), None

    def _draw_clip(self, rng: np.random.Generator) -> int:
        drawn = int(np.searchsorted(self._cumulative, rng.random(), side="right"))
        return min(drawn, len(self.clips) - 1)

    def _draw_start(self, opening: FloatArray, rng: np.random.Generator) -> int:
        """Draw the first target frame, if possible such that all target frames show the face."""
        size = self.windows.num_frames
        num_lost = np.concatenate([[0], np.cumsum(np.isnan(opening))])
        starts = np.flatnonzero(num_lost[size:] == num_lost[:-size])
        return int(rng.choice(starts if len(starts) else len(opening) - size + 1))

    def _draw_reference(self, opening: FloatArray, start: int, rng: np.random.Generator) -> int:
        """Draw a reference frame that is not near the targets.

        Some references have a wide mouth opening, so that the model learns to close the mouth.
        """
        frames = np.arange(len(opening))
        gap = np.maximum(start - frames, frames - (start + self.windows.num_frames - 1))
        far = gap >= self.windows.reference_min_gap
        candidates = np.flatnonzero(far & ~np.isnan(opening))
        if not len(candidates):
            candidates = np.flatnonzero(gap == gap.max())
        prefer_open = rng.random() < self.windows.open_reference_fraction
        if prefer_open and not np.isnan(opening[candidates]).any():
            widest = np.quantile(opening[candidates], _OPEN_QUANTILE)
            candidates = candidates[opening[candidates] >= widest]
        return int(rng.choice(candidates))

    def _negative(
        self, clip: ClipFile, clip_index: int, start: int, rng: np.random.Generator
    ) -> Tensor:
        """Return audio features that do not match: half from the same clip, half from others."""
        shifted = np.flatnonzero(abs(np.arange(len(clip)) - start) >= _NEGATIVE_MIN_SHIFT)
        other = self._draw_clip(rng)
        if len(shifted) and (other == clip_index or rng.random() < 0.5):
            return self._segment(clip, int(rng.choice(shifted)))
        last = self.clips[other].num_frames - self.windows.num_frames
        return self._segment(self.open(other), int(rng.integers(last + 1)))

    def _frames(self, start: int) -> range:
        """Return the frames whose audio is part of the window that starts at `start`."""
        options = self.windows
        stop = start + options.num_frames + options.lookahead_frames
        return range(start - options.context_frames, stop)

    def _window_starts(self, frames: range) -> Tensor:
        """Return the first mel frame of each window, int64 [W], counted from that of window 0."""
        starts = [mel_window_start(frame, self.spec.fps, self.spec) for frame in frames]
        return torch.tensor(starts) - starts[0]

    def _segment(self, clip: ClipFile, start: int) -> Tensor:
        """Return the audio features of a window, float32 [rows, L]; silence outside the clip."""
        first = mel_window_start(self._frames(start).start, self.spec.fps, self.spec)
        rows = self._features.read(clip, first, first + self._num_mels)
        segment = self._features.silence(self._num_mels)
        offset = max(0, -first)
        segment[:, offset : offset + rows.shape[1]] = rows
        return segment


class PseudoLabelDataset(ClipDataset):
    """A dataset of a corpus of `talkinghead pseudo_label`, which has no images.

    All speakers are equally likely.
    """

    def __init__(self, corpus_dir: Path | str, windows: WindowOptions | None = None) -> None:
        plain = replace(windows or WindowOptions(), emotions=(), head_pose=False)
        super().__init__(corpus_dir, "train", plain, SamplingOptions(temperature=0.0))

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return the audio features and the lip motion of a window.

        The entries pseudo_label_mel, pseudo_label_starts and pseudo_label_lips correspond to mel,
        window_starts and lips of a `ClipDataset`.
        """
        rng = make_rng(self.windows.seed, _PSEUDO_LABEL_STREAM, index)
        clip_index = self._draw_clip(rng)
        last = self.clips[clip_index].num_frames - self.windows.num_frames
        start = int(rng.integers(last + 1))
        clip, frames = self.open(clip_index), self._frames(start)
        return {
            "pseudo_label_mel": self._segment(clip, start),
            "pseudo_label_starts": self._window_starts(frames),
            "pseudo_label_lips": _pad_with_nan(clip.tensor("lip_motion"), frames),
        }


class EvenClipDataset(ClipDataset):
    """A dataset of a fixed number of windows, spread evenly over the clips of a split."""

    def __init__(
        self,
        corpus_dir: Path | str,
        split: str = "val",
        windows: WindowOptions | None = None,
        num_windows: int = 64,
    ) -> None:
        super().__init__(corpus_dir, split, windows)
        num_starts = [clip.num_frames - self.windows.num_frames + 1 for clip in self.clips]
        self._fixed = spread_windows(num_starts, num_windows)

    def __len__(self) -> int:
        return len(self._fixed)

    def _draw_window(self, index: int) -> tuple[int, int | None]:
        return self._fixed[index]


def _long_clips(
    manifest: Manifest, split: str, windows: WindowOptions, corpus_dir: Path | str
) -> list[ClipEntry]:
    """Return the clips of a split that are at least as long as a window.

    Raises:
        CorpusError: There is no such clip, or a clip has none of the emotion labels.
    """
    clips = [c for c in manifest.split(split) if c.num_frames >= windows.num_frames]
    if not clips:
        raise CorpusError(
            f"{corpus_dir} has no clip of {windows.num_frames} frames or more in split {split}; "
            "add videos and run `talkinghead prepare` again, with val_fraction or test_fraction "
            "above 0 for these splits, or give a smaller data.num_frames"
        )
    others = [clip for clip in clips if windows.emotions and clip.emotion not in windows.emotions]
    if others:
        found = ", ".join(sorted({str(clip.emotion) for clip in others}))
        raise CorpusError(
            f"model.generator.emotions is {', '.join(windows.emotions)}, but {len(others)} of "
            f"{len(clips)} clips of {corpus_dir} have other labels or None ({found}; for example "
            f"{others[0].id}): prepare it with emotions=folder or emotions=LABELS.csv, or change "
            "model.generator.emotions"
        )
    return clips


def _pad_with_nan(motion: FloatArray, frames: range) -> Tensor:
    """Return `frames` of a lip motion [T, 20, 2], with NaN for frames outside the clip."""
    lips = np.full((len(frames), *motion.shape[1:]), np.nan, np.float32)
    first, stop = max(0, frames.start), min(len(motion), frames.stop)
    lips[first - frames.start : stop - frames.start] = motion[first:stop]
    return torch.from_numpy(lips)


def _to_chw(images: UInt8Array) -> Tensor:
    return torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()
