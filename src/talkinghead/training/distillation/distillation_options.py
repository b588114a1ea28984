"""Options of the distillation of a lip prior."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class DistillationOptions:
    """Options of `distil_lip_prior`.

    Attributes:
        num_iterations: Number of optimiser steps.
        max_minutes: Training time after which training ends, interruptions left out; None for no
            limit. The learning rate falls with the time if the time is the tighter limit.
        batch_size: Sequences per step.
        num_frames: Video frames of a sequence.
        lr: Largest learning rate, reached after 5 % of the steps; it then falls with a cosine.
        voice_fraction: Fraction of sequences from the voices, whose lip motion the prior predicts.
        silence_fraction: Fraction of sequences of silence or noise, for which the tokens must be
            those of silence before the distillation. The corpora have the remaining fraction.
        corpus_weights: Weight of each corpus; empty for equal weights.
        temperature: Weight of a speaker within a corpus, as a power of its number of clips.
        predicted_fraction: Fraction of the sequences of the corpora after the first whose target is
            the prior's lip motion instead of the detected one.
        own_face_fraction: Fraction of the sequences of a corpus with a face of their own speaker.
            The others, and voices, get other faces, half of them mixed, with noise.
        token_weight: Weight of the distance to the old tokens with the target's lip motion, which
            keeps the decoder's other inputs.
        feature_weight: Weight of a prediction of the principal components of the prior's inputs
            from the last hidden layer but one, which speeds up training on few voices.
        stretch: Half of the sequences are played faster or slower by at most this fraction.
        held_out_every: One in so many voices is kept for the measurement of the result.
        seed: Seed of sampling and augmentation.
    """

    num_iterations: int = 4000
    max_minutes: float | None = None
    batch_size: int = 8
    num_frames: int = 72
    lr: float = 1.5e-3
    voice_fraction: float = 0.6
    silence_fraction: float = 0.05
    corpus_weights: Sequence[float] = ()
    temperature: float = 0.3
    predicted_fraction: float = 0.5
    own_face_fraction: float = 0.7
    token_weight: float = 0.3
    feature_weight: float = 0.5
    stretch: float = 0.12
    held_out_every: int = 15
    seed: int = 0
