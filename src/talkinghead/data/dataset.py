"""Windows of prepared clips, as training and validation take them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset

from talkinghead.data.clip_features import ClipFeatureReader
from talkinghead.data.clip_file import ClipFile
from talkinghead.data.manifest import ClipEntry, Manifest
from talkinghead.data.window_sampling import clip_probabilities, make_rng, spread_windows
from talkinghead.errors import CorpusError
from talkinghead.features.faces.alignment import lip_motion, lips_at
from talkinghead.features.faces.head_pose import head_turn
from talkinghead.media.timing import frame_time_s, mel_window_start, seconds_to_samples
from talkinghead.types import UInt8Array

_CLIP, _WINDOW, _VOICE, _SPOKEN = 0, 1, 2, 3


class ClipDataset(Dataset[dict[str, Any]]):
    """Random windows without end: item `index` is a pure function of (seed, index).

    Args:
        corpus_dir: a prepared corpus.
        split: "train", "val" or "test".
        num_frames: target frames of a window, T.
        context_frames: frames of audio before the first target frame.
        lookahead_frames: frames of audio after the last.
        seed: of every draw.
        audio_features: names of the audio features that the model uses.
        emotions: adds the clip's emotion, as its number among these.
        head_pose: adds how far the targets' heads are turned from the reference's.
        windows_per_clip: so many consecutive items come from one clip (contrastive training wants
            hard negatives).
        reference_min_gap: the reference is at least so many frames from every target frame, where
            the clip allows it.
        open_reference_fraction: share of references drawn among the clip's most open mouths.
        revoiced_fraction: share of windows, of clips that have other voices (`talkinghead
            revoice`), in which one of them speaks.
        negative_min_shift: least shift, in frames, of a negative from the same clip.
        speaker_weights: see `clip_probabilities`.
        temperature: see `clip_probabilities`.
        spoken: adds other speech to every item, and the lips that go with it.

    Raises:
        CorpusError: the corpus is missing or broken, or the split has no clip that is long enough,
            or a clip without one of the emotions.
    """

    def __init__(
        self,
        corpus_dir: Path | str,
        split: str = "train",
        num_frames: int = 5,
        context_frames: int = 16,
        lookahead_frames: int = 2,
        seed: int = 0,
        *,
        audio_features: Sequence[str] = ("mel",),
        emotions: Sequence[str] = (),
        head_pose: bool = False,
        windows_per_clip: int = 1,
        reference_min_gap: int = 10,
        open_reference_fraction: float = 0.3,
        revoiced_fraction: float = 0.0,
        negative_min_shift: int = 5,
        speaker_weights: Mapping[str, float] | None = None,
        temperature: float = 0.5,
        spoken: PseudoLabelDataset | None = None,
    ) -> None:
        self.corpus_dir = Path(corpus_dir)
        self.manifest = Manifest.load(corpus_dir)
        self.spec = self.manifest.spec
        self.clips: list[ClipEntry] = [
            c for c in self.manifest.split(split) if c.num_frames >= num_frames
        ]
        if not self.clips:
            raise CorpusError(
                f"{corpus_dir} has no clip of {num_frames} frames or more in split {split}; "
                "add videos and prepare it again, or change the splits or num_frames"
            )
        if emotions:
            _require_labels(self.clips, emotions, corpus_dir)
        self.emotions = list(emotions)
        self.head_pose = head_pose
        self.num_frames = num_frames
        self.context_frames = context_frames
        self.lookahead_frames = lookahead_frames
        self.seed = seed
        self.windows_per_clip = windows_per_clip
        self.reference_min_gap = reference_min_gap
        self.open_reference_fraction = open_reference_fraction
        self.revoiced_fraction = revoiced_fraction
        self.spoken = spoken
        self.negative_min_shift = negative_min_shift
        self._features = ClipFeatureReader(self.spec, audio_features)
        num_windows = context_frames + num_frames + lookahead_frames
        mels_per_frame = self.spec.mels_per_second / self.spec.fps
        self._num_windows = num_windows
        self._num_mels = math.ceil((num_windows - 1) * mels_per_frame) + self.spec.mel_window
        self._cumulative = np.cumsum(
            clip_probabilities([c.speaker for c in self.clips], speaker_weights, temperature)
        )

    def open(self, clip_index: int) -> ClipFile:
        """A clip's file."""
        return ClipFile(self.corpus_dir / self.clips[clip_index].path)

    def audio(self, clip_index: int, start: int) -> Tensor:
        """The target frames' sound: float32 [N], silence beyond the clip's end."""
        samples = self.open(clip_index).tensor("audio")
        begin, end = (
            seconds_to_samples(frame_time_s(frame, self.spec.fps), self.spec.sample_rate)
            for frame in (start, start + self.num_frames)
        )
        part = torch.from_numpy(samples[begin:end].astype(np.float32) / 32767)
        return torch.nn.functional.pad(part, (0, end - begin - len(part)))

    def __getitem__(self, index: int) -> dict[str, Any]:
        """One window.

        Returns:
            reference_face uint8 [3, face, face]; faces uint8 [T, 3, face, face]; mean_face uint8
            [3, face, face]; mel float32 [rows, L], the stretch of audio features that the windows
            lie in (silence beyond the clip's ends), mel_negative likewise from elsewhere;
            window_starts int64 [W], where each frame's window begins in the stretch, for frames
            start - context_frames to start + T - 1 + lookahead_frames; lips float32 [W, 20, 2],
            their motion in those frames (see `lip_motion`), NaN beyond the clip's ends; lip_points
            float32 [T, 20, 2], where they are in the target frames, canonical pixels, and
            reference_lips float32 [20, 2] in the reference; index,
            clip_index and start int; clip (its id) and speaker str. By choice mel_heard, like mel,
            perhaps of another voice; emotion int; head_turn float32 [T, 3], degrees (see
            `talkinghead.features.faces.head_pose`); and what a `PseudoLabelDataset` gives.
        """
        rng = make_rng(self.seed, _WINDOW, index)
        clip_index, start = self._draw(index, rng)
        clip = self.open(clip_index)
        opening = clip.tensor("mouth_opening")
        if start is None:
            start = self._draw_start(opening, rng)
        reference = self._draw_reference(opening, start, rng)
        first = self._first_mel(start)
        frames = self._frames(start)
        return {
            "reference_face": _to_chw(clip.faces(reference, reference + 1))[0],
            "faces": _to_chw(clip.faces(start, start + self.num_frames)),
            "mean_face": torch.from_numpy(clip.tensor("mean_face")),
            "mel": self._stretch(clip, first),
            "mel_negative": self._negative(clip, clip_index, start, rng),
            "window_starts": self._window_starts(frames),
            "lips": _within(lip_motion(clip.tensor("lips")), frames),
            "reference_lips": torch.from_numpy(lips_at(clip.tensor("lips"), reference)),
            "lip_points": torch.from_numpy(
                clip.tensor("lips")[start : start + self.num_frames].astype(np.float32)
            ),
            "index": index,
            "clip_index": clip_index,
            "start": start,
            "clip": self.clips[clip_index].id,
            "speaker": self.clips[clip_index].speaker,
            **self._heard(clip, first, index),
            **({} if self.spoken is None else self.spoken[index]),
            **self._conditions(clip, clip_index, start, reference),
        }

    def _conditions(
        self, clip: ClipFile, clip_index: int, start: int, reference: int
    ) -> dict[str, Any]:
        conditions: dict[str, Any] = {}
        if self.emotions:
            conditions["emotion"] = self.emotions.index(str(self.clips[clip_index].emotion))
        if self.head_pose:
            poses = clip.tensor("head_pose")
            turn = head_turn(poses[start : start + self.num_frames], poses[reference])
            conditions["head_turn"] = torch.from_numpy(turn)
        return conditions

    def _draw(self, index: int, rng: np.random.Generator) -> tuple[int, int | None]:
        """The clip of an item, and the start where it is fixed."""
        return self._draw_clip(make_rng(self.seed, _CLIP, index // self.windows_per_clip)), None

    def _draw_clip(self, rng: np.random.Generator) -> int:
        return min(
            int(np.searchsorted(self._cumulative, rng.random(), side="right")), len(self.clips) - 1
        )

    def _draw_start(self, opening: npt.NDArray[np.float32], rng: np.random.Generator) -> int:
        """A start whose window shows the face throughout, if there is one."""
        lost = np.concatenate([[0], np.cumsum(np.isnan(opening))])
        starts = np.flatnonzero(lost[self.num_frames :] == lost[: -self.num_frames])
        return int(rng.choice(starts if len(starts) else len(opening) - self.num_frames + 1))

    def _draw_reference(
        self, opening: npt.NDArray[np.float32], start: int, rng: np.random.Generator
    ) -> int:
        """A frame away from the targets, at times an open mouth, which is hard to close."""
        frames = np.arange(len(opening))
        gap = np.maximum(start - frames, frames - (start + self.num_frames - 1))
        candidates = np.flatnonzero((gap >= self.reference_min_gap) & ~np.isnan(opening))
        if not len(candidates):
            candidates = np.flatnonzero(gap == gap.max())
        wants_open = rng.random() < self.open_reference_fraction
        if wants_open and not np.isnan(opening[candidates]).any():
            candidates = candidates[opening[candidates] >= np.quantile(opening[candidates], 0.85)]
        return int(rng.choice(candidates))

    def _heard(self, clip: ClipFile, first: int, index: int) -> dict[str, Tensor]:
        """What is to be heard in place of the clip's own voice, at times another."""
        if not self.revoiced_fraction:
            return {}
        return {"mel_heard": self._stretch(clip, first)}

    def _negative(
        self, clip: ClipFile, clip_index: int, start: int, rng: np.random.Generator
    ) -> Tensor:
        """Features of other frames: evenly the same clip's, shifted, or another clip's."""
        frames = np.arange(len(clip))
        shifted = np.flatnonzero(abs(frames - start) >= self.negative_min_shift)
        other = self._draw_clip(rng)
        if len(shifted) and (other == clip_index or rng.random() < 0.5):
            return self._stretch(clip, self._first_mel(int(rng.choice(shifted))))
        last = self.clips[other].num_frames - self.num_frames
        return self._stretch(self.open(other), self._first_mel(int(rng.integers(last + 1))))

    def _frames(self, start: int) -> range:
        """Those whose audio windows belong to targets from `start` on."""
        return range(start - self.context_frames, start + self.num_frames + self.lookahead_frames)

    def _window_starts(self, frames: range) -> Tensor:
        """Where the frames' windows begin, from where the first one does: int64 [W]."""
        starts = [mel_window_start(frame, self.spec.fps, self.spec) for frame in frames]
        return torch.tensor(starts) - starts[0]

    def _first_mel(self, start: int) -> int:
        return mel_window_start(start - self.context_frames, self.spec.fps, self.spec)

    def _stretch(self, clip: ClipFile, first: int) -> Tensor:
        """Features `first` to `first + L`, float32 [rows, L], silence beyond the clip's ends."""
        rows = self._features.read(clip, first, first + self._num_mels)
        stretch = self._features.silence(self._num_mels)
        inside = max(0, -first)
        stretch[:, inside : inside + rows.shape[1]] = rows
        return stretch


class PseudoLabelDataset(ClipDataset):
    """Windows of a corpus of sound and lips without pictures (`talkinghead pseudo_label`).

    Voices are drawn evenly.

    Args:
        corpus_dir: such a corpus.
        **options: those of `ClipDataset` that concern time, sound and the seed.
    """

    def __init__(self, corpus_dir: Path | str, **options: Any) -> None:
        super().__init__(corpus_dir, "train", temperature=0.0, **options)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """One window: pseudo_label_mel, pseudo_label_starts and pseudo_label_lips.

        As mel, window_starts and lips of a `ClipDataset`.
        """
        rng = make_rng(self.seed, _SPOKEN, index)
        clip_index = self._draw_clip(rng)
        start = int(rng.integers(self.clips[clip_index].num_frames - self.num_frames + 1))
        clip, frames = self.open(clip_index), self._frames(start)
        return {
            "pseudo_label_mel": self._stretch(clip, self._first_mel(start)),
            "pseudo_label_starts": self._window_starts(frames),
            "pseudo_label_lips": _within(clip.tensor("lip_motion"), frames),
        }


class EvenClipDataset(ClipDataset):
    """So many windows, spread evenly over a split's clips and always the same: for validation.

    Args:
        corpus_dir: a prepared corpus.
        split: "val", "test" or "train".
        num_windows: how many.
        **options: those of `ClipDataset`.
    """

    def __init__(
        self, corpus_dir: Path | str, split: str = "val", *, num_windows: int = 64, **options: Any
    ) -> None:
        super().__init__(corpus_dir, split, **options)
        self._windows = spread_windows(
            [c.num_frames - self.num_frames + 1 for c in self.clips], num_windows
        )

    def __len__(self) -> int:
        return len(self._windows)

    def _draw(self, index: int, rng: np.random.Generator) -> tuple[int, int | None]:
        return self._windows[index]


def _require_labels(
    clips: Sequence[ClipEntry], emotions: Sequence[str], corpus_dir: Path | str
) -> None:
    others = [clip for clip in clips if clip.emotion not in emotions]
    if others:
        found = ", ".join(sorted({str(clip.emotion) for clip in others}))
        raise CorpusError(
            f"model.generator.emotions is {', '.join(emotions)}, but {len(others)} of {len(clips)} "
            f"clips of {corpus_dir} have other labels or None ({found}; {others[0].id} among "
            "them): prepare it with emotions=folder or emotions=LABELS.csv, or change "
            "model.generator.emotions"
        )


def _within(motion: npt.NDArray[np.float32], frames: range) -> Tensor:
    """[T, 20, 2] in some frames, NaN where there are none."""
    lips = np.full((len(frames), *motion.shape[1:]), np.nan, np.float32)
    first, stop = max(0, frames.start), min(len(motion), frames.stop)
    lips[first - frames.start : stop - frames.start] = motion[first:stop]
    return torch.from_numpy(lips)


def _to_chw(images: UInt8Array) -> Tensor:
    return torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()
