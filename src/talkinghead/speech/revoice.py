"""Other voices for a corpus: its sentences spoken by machines, in time with the real mouths.

Where few people speak, a model learns their voices. Each clip's sentence is spoken again by others,
and the features of that sound are warped in time onto the clip's own, so that they fit its mouth.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np
import torch
from rich.progress import track
from torch import Tensor

from talkinghead.data.labels import read_clip_table
from talkinghead.data.manifest import Manifest
from talkinghead.data.storage import ClipFile, add_voices
from talkinghead.errors import CorpusError, UsageError
from talkinghead.features.audio import NUM_PROSODY, AudioFeatures
from talkinghead.features.time_warp import sample_frames, time_warp
from talkinghead.media.audio import Resampler
from talkinghead.speech.protocols import TextToSpeech
from talkinghead.speech.voice_activity import SAMPLE_RATE, WINDOW_SIZE, voice_activity
from talkinghead.types import AVSpec, FloatArray

log = logging.getLogger(__name__)

_SPEAKS = 0.5
_MIN_SPEECH_S = 0.2
_SILENCE_S = 0.3
"""What is put before and behind a machine's sentence."""
_PEAK = 0.4


def revoice_corpus(
    corpus_dir: Path | str, texts: Path | str, voices: Mapping[str, TextToSpeech]
) -> int:
    """Gives every clip that has a text the other voices; those that have them are left as they are.

    Args:
        corpus_dir: a prepared corpus.
        texts: a CSV file with the columns `clip` (its id, or its video's path below the input
            folder) and `text`.
        voices: who speaks, by name.

    Returns:
        How many clips have the voices now.

    Raises:
        UsageError: no voices.
        CorpusError: the corpus or the file is missing or broken, or in no clip that the file names
            speech is found.
        SpeechError: a voice failed.
    """
    if not voices:
        raise UsageError("voices is empty: name some, such as +tts@voices.joe=piper")
    corpus_dir = Path(corpus_dir)
    manifest = Manifest.load(corpus_dir)
    sentences = read_texts(Path(texts), [clip.id for clip in manifest.clips])
    revoicer = _Revoicer(voices, manifest.spec)
    num_done = 0
    clips = [clip for clip in manifest.clips if clip.id in sentences]
    for clip in track(clips, "re-voicing"):
        path = corpus_dir / clip.path
        done = ClipFile(path).voices == list(voices) or revoicer.add(path, sentences[clip.id])
        num_done += done
        if not done:
            log.warning("%s: no speech was found in it, or in a voice's: skipped", clip.id)
    if not num_done:
        raise CorpusError(f"{corpus_dir}: no speech was found in any of {len(clips)} clips")
    log.info("%d of %d clips have the voices %s", num_done, len(clips), ", ".join(voices))
    return num_done


def read_texts(path: Path, clip_ids: Collection[str]) -> dict[str, str]:
    """What is said in each clip that a CSV file names; other names are passed over.

    Raises:
        CorpusError: the file is missing or no such table, or has a text for no clip.
    """
    known = set(clip_ids)
    table = read_clip_table(path, "text", known)
    texts = {clip: text for clip, text in table.items() if clip in known and text}
    if not texts:
        raise CorpusError(
            f"texts={path} has a text for none of {len(known)} clips: its column clip must have "
            "their ids, such as SPEAKER/CLIP"
        )
    return texts


class _Revoicer:
    def __init__(self, voices: Mapping[str, TextToSpeech], spec: AVSpec) -> None:
        self.voices, self.spec = voices, spec
        self.features = AudioFeatures(spec, prosody=True)

    def add(self, path: Path, text: str) -> bool:
        """Speaks a clip's text in every voice; False where no speech was found."""
        clip = ClipFile(path)
        own = torch.from_numpy(clip.mel())
        span = self._span(np.asarray(clip.tensor("audio") / 32767, np.float32), own.shape[-1])
        if span is None:
            return False
        spoken = []
        for voice in self.voices.values():
            features = self._speak(voice, text)
            other = None if features is None else self._follow(own, span, *features)
            if other is None:
                return False
            spoken.append(other.numpy())
        mel, prosody = np.split(np.stack(spoken), [-NUM_PROSODY], axis=1)
        add_voices(path, list(self.voices), mel, prosody)
        return True

    def _speak(self, voice: TextToSpeech, text: str) -> tuple[Tensor, tuple[int, int]] | None:
        """A sentence's features [rows, M] and the frames in which it is said."""
        rate = self.spec.sample_rate
        resampler = Resampler(voice.sample_rate, rate)
        pieces = [part for piece in voice.speak(text) for part in resampler.push(piece)]
        silence = np.zeros(round(_SILENCE_S * rate), np.float32)
        samples = np.concatenate([silence, *pieces, *resampler.flush(), silence])
        samples *= _PEAK / max(np.abs(samples).max(), 1e-6)
        features = self.features(torch.from_numpy(samples))
        span = self._span(samples, features.shape[-1])
        return None if span is None else (features, span)

    def _span(self, samples: FloatArray, num_frames: int) -> tuple[int, int] | None:
        """The mel frames from the first speech to the last."""
        resampler = Resampler(self.spec.sample_rate, SAMPLE_RATE)
        chunks = [*resampler.push(samples), *resampler.flush()]
        spoken = [n for n, (_, p) in enumerate(voice_activity(chunks)) if p >= _SPEAKS]
        if not spoken:
            return None
        # One window more on both sides: the detector is late for a quiet consonant.
        seconds = np.array([max(0, spoken[0] - 1), spoken[-1] + 2]) * WINDOW_SIZE / SAMPLE_RATE
        first, last = (int(s * self.spec.mels_per_second) for s in seconds)
        last = min(last, num_frames)
        return (first, last) if last - first >= _MIN_SPEECH_S * self.spec.mels_per_second else None

    def _follow(
        self, own: Tensor, span: tuple[int, int], features: Tensor, other: tuple[int, int]
    ) -> Tensor:
        """Features [rows, M] in the time of a clip's log-mel; silent where it is."""
        mel = features[: self.spec.num_mels]
        inside = time_warp(own[:, slice(*span)], mel[:, slice(*other)], self.spec)
        before, behind = np.arange(span[0]) - span[0], np.arange(own.shape[-1] - span[1])
        frames = np.concatenate([before + other[0], inside + other[0], behind + other[1]])
        frames = frames.astype(np.float32)
        # Pitch is not to be mixed with the zeros of what has none.
        prosody = sample_frames(features[self.spec.num_mels :], np.rint(frames))
        return torch.cat([sample_frames(mel, frames), prosody])
