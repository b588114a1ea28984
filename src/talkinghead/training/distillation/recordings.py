"""Recordings of speech with lip motion, for the distillation of a lip prior.

Shape suffixes: T video frames, M mel frames, P = 40 coordinates of the lip points, K components of
the speech features.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from talkinghead.data.clip_file import ClipFile
from talkinghead.data.manifest import Manifest
from talkinghead.data.window_sampling import clip_probabilities
from talkinghead.errors import CorpusError, UsageError
from talkinghead.features.audio_features import AudioFeatures
from talkinghead.media.atomic_file import atomic_path
from talkinghead.media.audio_decoding import read_audio
from talkinghead.predict.audio.lip_priors.mapped_prior import MappedLipPrior
from talkinghead.progress_bar import track_items
from talkinghead.training.distillation.distillation_options import DistillationOptions
from talkinghead.types import AVSpec, FloatArray

_AUDIO_SUFFIXES = {".wav", ".flac", ".opus", ".ogg", ".mp3", ".m4a"}
_NUM_COMPONENTS = 128


@dataclass
class Recording:
    """Speech with lip motion.

    Attributes:
        mel: float [80, M].
        predicted: lip motion predicted by the prior, float [T, P].
        features: principal components of the prior's inputs, float [T, K].
        corpus: number of the corpus; None for voices.
        speaker: name of the corpus's speaker.
    """

    mel: Tensor
    predicted: Tensor
    features: Tensor
    corpus: int | None = None
    speaker: str = ""


def read_recordings(
    spec: AVSpec, corpora: Sequence[Path], voices: Path, lip_prior: MappedLipPrior
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
        for clip in track_items(manifest.split("train"), f"reading {corpus.name}"):
            file = ClipFile(corpus / clip.path)
            mel = torch.from_numpy(file.mel())
            recordings.append(_recording(lip_prior, file.audio(), mel, len(file)))
            recordings[-1].corpus, recordings[-1].speaker = number, clip.speaker
    extract = AudioFeatures(spec)
    for path in track_items(files, "reading voices"):
        samples = read_audio(path, spec.sample_rate).samples
        num_frames = int(len(samples) * spec.fps / spec.sample_rate)
        mel = extract(torch.from_numpy(samples))
        recordings.append(_recording(lip_prior, samples, mel, num_frames))
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


def recording_probabilities(
    recordings: Sequence[Recording], options: DistillationOptions
) -> FloatArray:
    """Return the probability of each recording.

    Raises:
        UsageError: the number of corpus weights differs from that of the corpora.
    """
    groups: defaultdict[int, list[int]] = defaultdict(list)
    for index, recording in enumerate(recordings):
        groups[-1 if recording.corpus is None else recording.corpus].append(index)
    num_corpora = len(groups) - (-1 in groups)
    weights = list(options.corpus_weights) or [1.0] * num_corpora
    if len(weights) != num_corpora:
        raise UsageError(
            f"there are {len(weights)} corpus weights for {num_corpora} corpora: give one weight "
            "for each corpus"
        )
    voices = options.voice_fraction
    shares = {n: (1 - voices) * weight / sum(weights) for n, weight in enumerate(weights)}
    probabilities = np.zeros(len(recordings))
    for group, members in groups.items():
        if group == -1:
            probabilities[members] = voices / len(members)
        else:
            speakers = [recordings[index].speaker for index in members]
            own = clip_probabilities(speakers, temperature=options.temperature)
            probabilities[members] = shares[group] * own
    return np.asarray(probabilities / probabilities.sum())


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
    )


def _recording(
    lip_prior: MappedLipPrior, samples: FloatArray, mel: Tensor, num_frames: int
) -> Recording:
    inputs = torch.from_numpy(lip_prior.recording_inputs(samples, num_frames))
    return Recording(mel, lip_prior.motion_of(inputs.float()), inputs)


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
