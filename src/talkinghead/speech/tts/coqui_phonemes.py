"""Phonemes of the speech of Coqui's models, from the alignment that a model computes.

Models with predicted durations (VITS, Glow-TTS, FastPitch and others) and with attention (Tacotron)
return the alignment of their symbols with their output, which the library discards.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from talkinghead.predict.audio.phonemes import Phoneme
from talkinghead.speech.tts.phoneme_symbols import phonemes_of


class RecordedInference:
    """The last inputs and outputs of a model's `inference`.

    Attributes:
        ids: numbers of the symbols, int [T]; None before the first call.
        outputs: the outputs.
    """

    def __init__(self) -> None:
        self.ids: Any = None
        self.outputs: Any = None


@contextmanager
def record_inference(model: Any) -> Iterator[RecordedInference]:
    """Record the calls of a model's `inference` during a `with` statement."""
    record, inference = RecordedInference(), model.inference

    def recorded(ids: Any, *arguments: Any, **options: Any) -> Any:
        record.ids, record.outputs = ids, inference(ids, *arguments, **options)
        return record.outputs

    model.inference = recorded
    try:
        yield record
    finally:
        del model.inference


def gives_alignment(model: Any) -> bool:
    """Return whether the symbols of a model are phonemes, which it aligns with its speech."""
    tokenizer = getattr(model, "tokenizer", None)
    return bool(getattr(tokenizer, "use_phonemes", False)) and hasattr(model, "inference")


def phonemes_of_inference(model: Any, record: RecordedInference) -> tuple[Phoneme, ...]:
    """Return the phonemes of recorded speech; none if the model returned no alignment.

    Args:
        model: the model.
        record: record of one sentence.
    """
    outputs = record.outputs if isinstance(record.outputs, dict) else {}
    alignment, output = outputs.get("alignments"), outputs.get("model_outputs")
    if alignment is None or output is None:
        return ()
    ids = record.ids.reshape(-1).tolist()
    weights = alignment[0].detach().float().cpu().numpy().squeeze()
    if weights.ndim != 2 or len(ids) not in weights.shape:
        return ()
    # [T, steps] or [steps, T]; there are at least as many steps as symbols.
    steps = weights.sum(1) if weights.shape[0] == len(ids) else weights.sum(0)
    audio = model.config.audio
    samples = output[0].squeeze()
    # A spectrogram has a row for each hop; a step of an attention may span several rows.
    num_samples = len(samples) * (1 if samples.ndim == 1 else int(audio["hop_length"]))
    rate = int(audio["sample_rate"])
    step_s = num_samples / max(float(steps.sum()), 1e-6) / rate
    times_s = np.append(0.0, np.cumsum(steps)) * step_s
    # Blanks, padding, beginnings and ends have names of several letters, such as <BLNK>.
    names = (model.tokenizer.characters.id_to_char(number) for number in ids)
    symbols = [name if len(name) == 1 else "_" for name in names]
    return tuple(phonemes_of(symbols, times_s.tolist()))
