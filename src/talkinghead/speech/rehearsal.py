"""Speech that no corpus has, with lips that a model of all speech gives it.

Who has heard few people say few sentences does not know how others move their lips. Whisper has
heard everybody, but not seen anybody. A linear map from what its encoder hears to where the lips
are is fitted on a corpus; then machines say any sentences in any voices, and the map gives them
lips. A generator learns from these what its corpus cannot tell.

Paper: Hinton, Vinyals and Dean, "Distilling the Knowledge in a Neural Network", 2015,
    arXiv:1503.02531; Radford et al., 2022, arXiv:2212.04356, for the teacher.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.progress import track
from safetensors.numpy import save
from torch import Tensor

from talkinghead.data.manifest import ClipEntry, Manifest
from talkinghead.data.sampling import clip_probabilities, make_rng
from talkinghead.data.storage import ClipFile, read_metadata
from talkinghead.errors import CorpusError, UsageError
from talkinghead.features.audio import AudioFeatures
from talkinghead.features.geometry import lip_motion
from talkinghead.media.audio import Resampler
from talkinghead.media.files import atomic_path
from talkinghead.speech.protocols import TextToSpeech
from talkinghead.speech.sentences import cut_sentences
from talkinghead.speech.stt.whisper import ENCODED_HZ, ENCODED_S, Whisper
from talkinghead.speech.voice_activity import SAMPLE_RATE
from talkinghead.types import AVSpec, FloatArray

log = logging.getLogger(__name__)

CODE_VERSION = "1"
_CONTEXT = tuple(range(-6, 7, 2))
"""The encoder's frames that the map looks at around a video frame: 120 ms on both sides."""
_RIDGE = 1.0
_ROWS_AT_ONCE = 1500
_LEAD_S, _TAIL_S, _GAP_S = 0.2, 0.3, 0.5
_PEAK = 0.4
_MIN_S = 1.5


@dataclass(frozen=True)
class RehearsalOptions:
    """What is said, and how much.

    Attributes:
        minutes: of speech, of each voice.
        spread_px: the standard deviation of a voice's mouth opening, canonical pixels. The map is
            timid with voices that its corpus does not have.
        min_chars, max_chars: of a sentence.
        seed: of the sentences' order.
    """

    minutes: float = 10.0
    spread_px: float = 3.2
    min_chars: int = 40
    max_chars: int = 140
    seed: int = 0

    def __post_init__(self) -> None:
        if self.minutes <= 0 or self.spread_px <= 0 or not 0 < self.min_chars <= self.max_chars:
            raise UsageError(
                f"got minutes={self.minutes}, spread_px={self.spread_px}, min_chars="
                f"{self.min_chars}, max_chars={self.max_chars}; expected numbers above zero, the "
                "least first"
            )


def rehearse(
    corpus_dir: Path | str,
    book: Path | str,
    output: Path | str,
    voices: Mapping[str, TextToSpeech],
    whisper: Whisper,
    options: RehearsalOptions | None = None,
) -> Manifest:
    """Makes a corpus of sound and lips, without pictures, for `data.spoken_dir`.

    Killed and run again, it goes on with the first voice that is not done.

    Args:
        corpus_dir: a prepared corpus, of whose split "train" the map is learnt.
        book: a text file, of which every sentence is said once, in one of the voices.
        output: the corpus to write.
        voices: who speaks, by name.
        whisper: the teacher.
        options: see `RehearsalOptions`.

    Returns:
        The manifest, as written.

    Raises:
        UsageError: no voices.
        CorpusError: the corpus is missing or broken, or the book has no sentence for a voice.
        SpeechError: a voice failed.
    """
    if not voices:
        raise UsageError("voices is empty: name some, such as +tts@voices.joe=piper")
    options, output = options or RehearsalOptions(), Path(output)
    manifest = Manifest.load(corpus_dir)
    sentences = read_sentences(Path(book), options)
    teacher = LipTeacher(whisper, manifest.spec)
    teacher.fit(Path(corpus_dir), manifest)
    stage = _Stage(output, manifest.spec, teacher, options)
    clips: list[ClipEntry] = []
    for number, (name, voice) in enumerate(voices.items()):
        clips += stage.perform(name, voice, sentences[number :: len(voices)])
    rehearsed = Manifest(manifest.spec, "whisper", CODE_VERSION, tuple(clips))
    rehearsed.save(output)
    minutes = sum(clip.duration_s for clip in clips) / 60
    log.info(
        "%s: %d sentences, %.1f minutes, by %s", output, len(clips), minutes, ", ".join(voices)
    )
    return rehearsed


def read_sentences(path: Path, options: RehearsalOptions) -> list[str]:
    """A text's sentences of the wanted length, each once, shuffled.

    Raises:
        CorpusError: it is missing, no text, or holds none.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CorpusError(
            f"book={path} cannot be read ({error}): give a text file, UTF-8"
        ) from error
    paragraphs = (" ".join(part.split()) for part in text.split("\n\n"))
    kept = sorted(
        {
            sentence.strip()
            for paragraph in paragraphs
            for sentence in cut_sentences([paragraph])
            if _can_be_said(sentence.strip(), options)
        }
    )
    if not kept:
        raise CorpusError(
            f"book={path} has no sentence of {options.min_chars} to {options.max_chars} letters: "
            "give a longer text, or change min_chars and max_chars"
        )
    order = make_rng(options.seed, 0, 0).permutation(len(kept))
    return [kept[index] for index in order]


def _can_be_said(sentence: str, options: RehearsalOptions) -> bool:
    plain = all(letter.isalpha() or letter in " ,.;:!?'-" for letter in sentence)
    return plain and options.min_chars <= len(sentence) <= options.max_chars


class LipTeacher:
    """A linear map from what Whisper's encoder hears to how the lips move.

    Linear, since what fits a corpus better fits other speech worse (docs/training.md).
    """

    def __init__(self, whisper: Whisper, spec: AVSpec) -> None:
        self.whisper, self.fps = whisper, float(spec.fps)

    def fit(self, corpus_dir: Path, manifest: Manifest) -> None:
        """Ridge regression on a corpus's clips, speakers of many held down.

        Raises:
            CorpusError: it has no clips for training.
        """
        clips = manifest.split("train")
        if not clips:
            raise CorpusError(f"{corpus_dir} has no clip in split train; prepare it with one")
        self.learnt_from = [clip.sha256 for clip in clips]
        weights = clip_probabilities([clip.speaker for clip in clips])
        files = [ClipFile(corpus_dir / clip.path) for clip in clips]
        sounds = (np.asarray(file.tensor("audio") / 32767, np.float32) for file in files)
        heard = track(self.encode(sounds), "learning lips", total=len(clips))
        moments, rows = torch.zeros(()), []
        for file, features, weight in zip(files, heard, weights, strict=True):
            motion = torch.from_numpy(lip_motion(file.tensor("lips"))).flatten(1)
            known = torch.isfinite(motion[:, 0])
            x = self._around(features, len(motion))[known]
            both = torch.cat([x, motion[known], x.new_ones(len(x), 1)], 1)
            rows.append(both * math.sqrt(weight / max(1, len(both))))
            if sum(map(len, rows)) >= _ROWS_AT_ONCE or file is files[-1]:
                together, rows = torch.cat(rows), []
                moments = moments + (together.T @ together).double()
        self._solve(moments)

    def _solve(self, moments: Tensor) -> None:
        """From the weighted sums of products of (features, lips, 1)."""
        moments = moments / moments[-1, -1]
        mean = moments[-1, :-1]
        covariance = moments[:-1, :-1] - mean[:, None] * mean
        size = len(covariance) - 40
        self.mean, offset = mean[:size], mean[size:]
        self.scale = covariance.diagonal()[:size].sqrt() + 1e-3
        inner = covariance[:size, :size] / self.scale / self.scale[:, None]
        ridge = inner + _RIDGE * torch.eye(size, dtype=inner.dtype)
        self.map = torch.linalg.solve(ridge, covariance[:size, size:] / self.scale[:, None])
        self.offset = offset

    def lips(self, features: FloatArray, num_frames: int) -> FloatArray:
        """Their motion in so many video frames: float32 [T, 20, 2] (see `lip_motion`)."""
        x = self._around(features, num_frames).double()
        motion = (x - self.mean) / self.scale @ self.map + self.offset
        return np.asarray(motion.unflatten(1, (20, 2)), np.float32)

    def encode(self, sounds: Iterable[FloatArray]) -> Iterator[FloatArray]:
        """Each sound's features; several that are short are heard together."""
        gap, most = round(_GAP_S * SAMPLE_RATE), round(ENCODED_S * SAMPLE_RATE)
        held: list[FloatArray] = []
        for sound in sounds:
            if held and sum(len(s) + gap for s in held) + len(sound) > most:
                yield from self._encode_together(held, gap)
                held = []
            held.append(sound[:most])
        if held:
            yield from self._encode_together(held, gap)

    def _encode_together(self, sounds: Sequence[FloatArray], gap: int) -> Iterator[FloatArray]:
        silence = np.zeros(gap, np.float32)
        features = self.whisper.encode(np.concatenate([p for s in sounds for p in (s, silence)]))
        start = 0
        for sound in sounds:
            first, last = (x * ENCODED_HZ // SAMPLE_RATE for x in (start, start + len(sound)))
            yield features[first : last + 1]
            start += len(sound) + gap

    def _around(self, features: FloatArray, num_frames: int) -> Tensor:
        """What the map looks at for each video frame: [T, len(_CONTEXT) * D]."""
        middle = np.rint(np.arange(num_frames) * ENCODED_HZ / self.fps).astype(int)
        index = np.clip(middle[:, None] + np.array(_CONTEXT), 0, len(features) - 1)
        return torch.from_numpy(features[index]).flatten(1)


class _Stage:
    """Where voices perform: writes what each says, with the lips that the teacher gives it."""

    def __init__(
        self, output: Path, spec: AVSpec, teacher: LipTeacher, options: RehearsalOptions
    ) -> None:
        self.output, self.spec, self.teacher, self.options = output, spec, teacher, options
        self.features = AudioFeatures(spec, prosody=True)

    def perform(self, name: str, voice: TextToSpeech, sentences: Sequence[str]) -> list[ClipEntry]:
        """A voice's clips; all of them are in memory until the last is spoken."""
        recipe: list[Any] = [
            CODE_VERSION,
            name,
            self.spec.to_dict(),
            vars(self.options),
            list(sentences),
        ]
        recipe.append(self.teacher.learnt_from)  # Another corpus teaches other lips.
        key = hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()
        done = sorted((self.output / "clips" / name).glob("*.safetensors"))
        entries = [read_metadata(path) or {} for path in done]
        if done and entries == [{"key": key, "num_clips": str(len(done))}] * len(done):
            return [self._entry(name, path) for path in done]
        for path in done:
            path.unlink()
        sounds = list(track(self._speak(voice, sentences), f"{name} speaks"))
        if not sounds:
            raise CorpusError(
                f"the book has no sentence for the voice {name}: give a longer one, or fewer voices"
            )
        lips = [
            self.teacher.lips(f, int(len(s) / SAMPLE_RATE * self.teacher.fps))
            for s, f in zip(sounds, self.teacher.encode(sounds), strict=True)
        ]
        opening = np.concatenate([m[:, 17:20, 1].mean(1) - m[:, 13:16, 1].mean(1) for m in lips])
        louder = self.options.spread_px / max(float(opening.std()), 1e-3)
        metadata = {"key": key, "num_clips": str(len(sounds))}
        paths = [self.output / "clips" / name / f"{n:05}.safetensors" for n in range(len(sounds))]
        for path, sound, motion in zip(paths, sounds, lips, strict=True):
            self._write(path, sound, motion * louder, metadata)
        return [self._entry(name, path) for path in paths]

    def _speak(self, voice: TextToSpeech, sentences: Sequence[str]) -> Iterator[FloatArray]:
        """Sentences at 16 kHz, silence before and behind, until there are enough."""
        left = self.options.minutes * 60 * SAMPLE_RATE
        lead, tail = (np.zeros(round(s * SAMPLE_RATE), np.float32) for s in (_LEAD_S, _TAIL_S))
        for sentence in sentences:
            if left <= 0:
                return
            resampler = Resampler(voice.sample_rate, SAMPLE_RATE)
            spoken = [part for piece in voice.speak(sentence) for part in resampler.push(piece)]
            sound = np.concatenate([lead, *spoken, *resampler.flush(), tail])
            if not _MIN_S * SAMPLE_RATE <= len(sound) <= ENCODED_S * SAMPLE_RATE:
                continue
            left -= len(sound)
            yield sound * np.float32(_PEAK / max(np.abs(sound).max(), 1e-6))

    def _write(
        self, path: Path, sound: FloatArray, motion: FloatArray, metadata: Mapping[str, str]
    ) -> None:
        resampler = Resampler(SAMPLE_RATE, self.spec.sample_rate)
        samples = np.concatenate([*resampler.push(sound), *resampler.flush()])
        features = self.features(torch.from_numpy(samples)).numpy().astype(np.float16)
        tensors = {
            "offsets": np.zeros(len(motion) + 1, np.int64),
            "mel": np.ascontiguousarray(features[: self.spec.num_mels]),
            "prosody": np.ascontiguousarray(features[self.spec.num_mels :]),
            "lip_motion": motion.astype(np.float32),
        }
        with atomic_path(path) as temporary:
            temporary.write_bytes(save(tensors, dict(metadata)))

    def _entry(self, name: str, path: Path) -> ClipEntry:
        num_frames = len(ClipFile(path))
        return ClipEntry(
            id=f"{name}/{path.stem}",
            speaker=name,
            path=path.relative_to(self.output).as_posix(),
            num_frames=num_frames,
            duration_s=num_frames / self.teacher.fps,
            split="train",
            source=name,
            sha256="",
        )
