"""Speech that no corpus has, with lips that a model of all speech gives it.

Who has heard few people say few sentences does not know how others move their lips. Machines say
any sentences in any voices, and who knows them better (`WhisperLipPrior`) gives them lips. A generator
learns from these what its corpus cannot tell.

Paper: Hinton, Vinyals and Dean, "Distilling the Knowledge in a Neural Network", 2015,
    arXiv:1503.02531.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.progress import track
from safetensors.numpy import save

from talkinghead.data.clip_file import STORED_FEATURES, ClipFile, read_metadata
from talkinghead.data.manifest import ClipEntry, Manifest
from talkinghead.data.window_sampling import make_rng
from talkinghead.errors import CorpusError, UsageError
from talkinghead.features.audio_features import AudioFeatures
from talkinghead.media.atomic_file import atomic_path
from talkinghead.media.audio_decoding import Resampler
from talkinghead.predict.audio.lip_prior import LipPrior, LipPriorStream, predict_lip_motion
from talkinghead.speech.protocols import TextToSpeech
from talkinghead.speech.sentences import split_sentences
from talkinghead.speech.voice_activity import SAMPLE_RATE
from talkinghead.types import AVSpec, FloatArray

log = logging.getLogger(__name__)

CODE_VERSION = "2"
_LEAD_S, _TAIL_S = 0.2, 0.3
_PEAK = 0.4
_MIN_S, _MAX_S = 1.5, 30.0


@dataclass(frozen=True)
class PseudoLabelOptions:
    """What is said, and how much.

    Attributes:
        minutes: of speech, of each voice.
        spread_px: the standard deviation of a voice's mouth opening, canonical pixels. The
            lip_prior is timid with voices that its corpus does not have.
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


def pseudo_label(
    book: Path | str,
    output: Path | str,
    spec: AVSpec,
    voices: Mapping[str, TextToSpeech],
    lip_prior: LipPrior | None,
    options: PseudoLabelOptions | None = None,
) -> Manifest:
    """Makes a corpus of sound and lips, without pictures, for `data.pseudo_label_dir`.

    Killed and run again, it goes on with the first voice that is not done.

    Args:
        book: a text file, of which every sentence is said once, in one of the voices.
        output: the corpus to write.
        spec: of the corpus that it goes with.
        voices: who speaks, by name.
        lip_prior: tells the lips.
        options: see `PseudoLabelOptions`.

    Returns:
        The manifest, as written.

    Raises:
        UsageError: no voices, no lip_prior, or the spec is not one that the lip_prior works at.
        CorpusError: the book is missing, or has no sentence for a voice.
        SpeechError: a voice failed.
    """
    if not voices:
        raise UsageError("voices is empty: name some, such as +tts@voices.joe=piper")
    if not lip_prior:
        raise UsageError("nobody tells the lips: choose lip_prior=whisper")
    options, output = options or PseudoLabelOptions(), Path(output)
    sentences = read_sentences(Path(book), options)
    stage = _Stage(output, spec, lip_prior, options)
    clips: list[ClipEntry] = []
    for number, (name, voice) in enumerate(voices.items()):
        clips += stage.perform(name, voice, sentences[number :: len(voices)])
    rehearsed = Manifest(spec, "whisper", CODE_VERSION, tuple(clips))
    rehearsed.save(output)
    minutes = sum(clip.duration_s for clip in clips) / 60
    log.info(
        "%s: %d sentences, %.1f minutes, by %s", output, len(clips), minutes, ", ".join(voices)
    )
    return rehearsed


def read_sentences(path: Path, options: PseudoLabelOptions) -> list[str]:
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
            for sentence in split_sentences([paragraph])
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


def _can_be_said(sentence: str, options: PseudoLabelOptions) -> bool:
    plain = all(letter.isalpha() or letter in " ,.;:!?'-" for letter in sentence)
    return plain and options.min_chars <= len(sentence) <= options.max_chars


class _Stage:
    """Where voices perform: writes what each says, with the lips that the teacher gives it."""

    def __init__(
        self, output: Path, spec: AVSpec, lip_prior: LipPrior, options: PseudoLabelOptions
    ) -> None:
        LipPriorStream(lip_prior, spec)  # Says so at once where they do not go together.
        self.output, self.spec, self.lip_prior, self.options = output, spec, lip_prior, options
        self.features = AudioFeatures(spec, STORED_FEATURES)

    def perform(self, name: str, voice: TextToSpeech, sentences: Sequence[str]) -> list[ClipEntry]:
        """A voice's clips; all of them are in memory until the last is spoken."""
        recipe: list[Any] = [
            CODE_VERSION,
            name,
            self.spec.to_dict(),
            vars(self.options),
            list(sentences),
        ]
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
        lips = [self._lips(sound) for sound in track(sounds, f"{name} is listened to")]
        opening = np.concatenate([m[:, 17:20, 1].mean(1) - m[:, 13:16, 1].mean(1) for m in lips])
        louder = self.options.spread_px / max(float(opening.std()), 1e-3)
        metadata = {"key": key, "num_clips": str(len(sounds))}
        paths = [self.output / "clips" / name / f"{n:05}.safetensors" for n in range(len(sounds))]
        for path, sound, motion in zip(paths, sounds, lips, strict=True):
            self._write(path, sound, motion * louder, metadata)
        return [self._entry(name, path) for path in paths]

    def _lips(self, sound: FloatArray) -> FloatArray:
        num_frames = int(len(sound) / SAMPLE_RATE * self.spec.fps)
        return predict_lip_motion(self.lip_prior, sound, self.spec)[:num_frames]

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
            if not _MIN_S * SAMPLE_RATE <= len(sound) <= _MAX_S * SAMPLE_RATE:
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
            duration_s=num_frames / float(self.spec.fps),
            split="train",
            source=name,
            sha256="",
        )
