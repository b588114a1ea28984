"""Recordings of speech with lip motion, for the distillation of a lip prior.

Shape suffixes: T video frames, M mel frames, P = 40 coordinates of the lip points, K components of
the speech features, R faces, D width of the tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from rich.progress import track
from torch import Tensor

from talkinghead.data.clip_file import ClipFile
from talkinghead.data.manifest import Manifest
from talkinghead.errors import CorpusError
from talkinghead.features.audio_features import AudioFeatures
from talkinghead.features.faces.alignment import as_tensor, lip_motion
from talkinghead.media.atomic_file import atomic_path
from talkinghead.media.audio_decoding import read_audio
from talkinghead.models.lipsync.generator import LipSyncGenerator
from talkinghead.predict.audio.whisper_prior import Encoder, WhisperLipPrior, recording_inputs
from talkinghead.types import AVSpec

_AUDIO_SUFFIXES = {".wav", ".flac", ".opus", ".ogg", ".mp3", ".m4a"}
_NUM_COMPONENTS = 128
_FACES_PER_CLIP = 2


@dataclass
class Recording:
    """Speech with lip motion.

    Attributes:
        mel: float [80, M].
        predicted: lip motion predicted by the prior, float [T, P].
        features: principal components of the prior's inputs, float [T, K].
        detected: lip motion of a corpus's clip, float [T, P], NaN where unknown; None for voices.
        faces: face tokens of the clip, float [R, D]; None for voices.
        corpus: number of the corpus; None for voices.
        speaker: name of the corpus's speaker.
    """

    mel: Tensor
    predicted: Tensor
    features: Tensor
    detected: Tensor | None = None
    faces: Tensor | None = None
    corpus: int | None = None
    speaker: str = ""


def read_recordings(
    generator: LipSyncGenerator,
    spec: AVSpec,
    corpora: Sequence[Path],
    voices: Path,
    whisper: Encoder,
    lip_prior: WhisperLipPrior,
) -> list[Recording]:
    """Return the training clips of corpora and the files of a folder of speech.

    Raises:
        CorpusError: the corpora have no training clips, or the folder has no files.
    """
    files = sorted(file for file in voices.rglob("*") if file.suffix in _AUDIO_SUFFIXES)
    manifests = [Manifest.load(corpus) for corpus in corpora]
    num_clips = sum(len(manifest.split("train")) for manifest in manifests)
    if not num_clips or not files:
        raise CorpusError(
            f"there are {num_clips} training clips and {len(files)} files in {voices}: give "
            "corpora with clips and a folder of speech"
        )
    recordings = []
    for number, (corpus, manifest) in enumerate(zip(corpora, manifests, strict=True)):
        for clip in track(manifest.split("train"), f"reading {corpus.name}"):
            one = _read_clip(generator, ClipFile(corpus / clip.path), whisper, lip_prior)
            one.corpus, one.speaker = number, clip.speaker
            recordings.append(one)
    extract = AudioFeatures(spec)
    for file in track(files, "reading voices"):
        samples = read_audio(file, spec.sample_rate).samples
        num_frames = int(len(samples) * spec.fps / spec.sample_rate)
        inputs = torch.from_numpy(recording_inputs(whisper, samples, num_frames))
        mel, motion = extract(torch.from_numpy(samples)), lip_prior.motion_of(inputs.float())
        recordings.append(Recording(mel, motion, inputs))
    _reduce_features(recordings)
    return recordings


def save_recordings(path: Path, recordings: Sequence[Recording]) -> None:
    """Write recordings to a file."""
    with atomic_path(path) as temporary:
        torch.save([vars(recording) for recording in recordings], temporary)


def load_recordings(path: Path) -> list[Recording]:
    """Return the recordings of a file of `save_recordings`."""
    return [Recording(**values) for values in torch.load(path, weights_only=True)]


def split_voices(
    recordings: Sequence[Recording], held_out_every: int
) -> tuple[list[Recording], list[Recording]]:
    """Return the recordings for training, and every n-th voice, for measurements."""
    voices = [recording for recording in recordings if recording.corpus is None]
    held_out = voices[held_out_every - 1 :: held_out_every]
    kept = {id(recording) for recording in held_out}
    return [one for one in recordings if id(one) not in kept], held_out


def stretch_recording(recording: Recording, rate: float) -> Recording:
    """Return a recording that is played `rate` times as fast, with the same pitch."""

    def stretch(rows: Tensor) -> Tensor:
        count = int(len(rows) / rate)
        place = ((torch.arange(count) + 0.5) * rate - 0.5).clamp(0, len(rows) - 1)
        lower = place.long()
        upper = (lower + 1).clamp(max=len(rows) - 1)
        return torch.lerp(rows[lower].float(), rows[upper].float(), (place - lower)[:, None])

    return replace(
        recording,
        mel=stretch(recording.mel.T).T,
        predicted=stretch(recording.predicted),
        features=stretch(recording.features),
        detected=None if recording.detected is None else stretch(recording.detected),
    )


def _read_clip(
    generator: LipSyncGenerator, clip: ClipFile, whisper: Encoder, lip_prior: WhisperLipPrior
) -> Recording:
    inputs = torch.from_numpy(recording_inputs(whisper, clip.audio(), len(clip)))
    motion = torch.from_numpy(lip_motion(clip.tensor("lips"))).flatten(1)
    tokens = [torch.empty(0, generator.lip_head.in_features), *_face_tokens(generator, clip)]
    predicted = lip_prior.motion_of(inputs.float())
    mel = torch.from_numpy(clip.mel())
    return Recording(mel, predicted, inputs, motion, torch.cat(tokens))


@torch.no_grad()
def _face_tokens(generator: LipSyncGenerator, clip: ClipFile) -> Iterator[Tensor]:
    lips = torch.from_numpy(clip.tensor("lips"))
    known = torch.isfinite(lips).all(2).all(1).nonzero()[:, 0]
    places = np.linspace(0, len(known) - 1, _FACES_PER_CLIP if len(known) else 0)
    for index in known[places.astype(int)].tolist():
        face = as_tensor(clip.faces(index, index + 1))
        yield generator.encode_reference(face, lips[index : index + 1]).token


def _reduce_features(recordings: Sequence[Recording]) -> None:
    """Replace the features by their principal components, partly whitened, in place."""
    rows = torch.cat([r.features[::25] for r in recordings]).float()
    mean, scale = rows.mean(0), rows.std(0) + 0.05
    rows = (rows - mean) / scale
    rank = min(_NUM_COMPONENTS, *rows.shape)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        basis = torch.svd_lowrank(rows, rank)[2]
    spread = (rows @ basis).std(0) + 1e-3
    basis = basis / (spread * spread.max()).sqrt()
    for recording in recordings:
        recording.features = ((recording.features.float() - mean) / scale) @ basis
