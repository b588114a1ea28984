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
        num_frames: Video frames of a sequence with a target.
        lr: Largest learning rate, reached after 4 % of the steps; it then falls with a cosine.
        voice_fraction: Fraction of sequences from the voices; the others are from the corpora.
        corpus_weights: Weight of each corpus; empty for equal weights.
        temperature: Weight of a speaker within a corpus, as a power of its number of clips.
        feature_weight: Weight of a prediction of the principal components of the prior's inputs
            from the last hidden layer, which speeds up training on few voices.
        stretch: Half of the sequences are played faster or slower by at most this fraction.
        held_out_every: One in so many voices is kept for the measurement of the result.
        seed: Seed of sampling and augmentation.
    """

    num_iterations: int = 5000
    max_minutes: float | None = None
    batch_size: int = 16
    num_frames: int = 128
    lr: float = 1.5e-3
    voice_fraction: float = 0.63
    corpus_weights: Sequence[float] = ()
    temperature: float = 0.4
    feature_weight: float = 0.5
    stretch: float = 0.15
    held_out_every: int = 15
    seed: int = 0
