"""Phonemes of Piper's speech with their times, read from the end of its audio.

A Piper voice computes the duration of each phoneme and discards it, and its command line program
writes nothing but audio. A copy of the voice therefore appends the durations and the phonemes to
the audio as further samples, so that the program is used unchanged.
"""

from __future__ import annotations

import hashlib
import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from talkinghead.errors import MediaError
from talkinghead.media.atomic_file import atomic_path
from talkinghead.paths import cache_dir
from talkinghead.predict.audio.phonemes import Phoneme, TimedSpeech
from talkinghead.speech.tts.phoneme_symbols import phonemes_of
from talkinghead.types import FloatArray

if TYPE_CHECKING:
    from onnx import ModelProto

log = logging.getLogger(__name__)

# Increase this number when the appended values change.
_VERSION = 1
# Piper converts samples in [-1, 1] to integers with this factor, rounding towards zero.
_FULL_SCALE = 32_767
# Last sample of a timed voice's audio.
_MARK = 29_867
_DEFAULT_HOP_LENGTH = 256


def timed_voice(path: Path, config: Mapping[str, Any]) -> Path | None:
    """Return a copy of a voice that appends the phonemes and their durations to its audio.

    The copy is made once and kept in the cache folder. Without the package onnx, for a voice whose
    phonemes are not IPA symbols or whose durations cannot be found, or if the cache cannot be
    written, None is returned and the reason is logged.

    Args:
        path: the .onnx file of a Piper voice.
        config: its configuration.
    """
    if config.get("phoneme_type", "espeak") != "espeak":
        return None
    try:
        config_path = path.with_name(f"{path.name}.json")
        digest = hashlib.sha256(config_path.read_bytes())
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
        copy = cache_dir() / "voices" / f"{digest.hexdigest()[:20]}-{_VERSION}.onnx"
        # The configuration is written last, so a file beside it is complete.
        copied_config = copy.with_name(f"{copy.name}.json")
        if not copied_config.is_file():
            _write_timed_copy(path, copy)
            with atomic_path(copied_config) as temporary:
                shutil.copyfile(config_path, temporary)
        return copy
    except ImportError:
        log.info("tts=piper: no phonemes without the package onnx: pip install onnx")
    except Exception as error:  # noqa: BLE001 - onnx raises many kinds; speech needs no phonemes
        level = logging.WARNING if isinstance(error, MediaError | OSError) else logging.INFO
        log.log(level, "%s: no phonemes for the lips: %s", path.name, error)
    return None


def _write_timed_copy(path: Path, copy: Path) -> None:
    import onnx

    model = onnx.load(str(path))
    append_durations(model)
    with atomic_path(copy) as temporary:
        onnx.save(model, str(temporary))


def append_durations(model: ModelProto) -> None:
    """Change a voice's graph so that its audio ends with the durations and ids of its phonemes.

    The audio [num_samples] is followed by the T durations in hops, the T ids, T and a mark, which
    become integers in Piper's 16-bit audio.

    Raises:
        ValueError: The graph has no unique node that rounds the durations.
    """
    from onnx import TensorProto, helper, numpy_helper

    graph, output = model.graph, model.graph.output[0].name
    durations = [each.output[0] for each in graph.node if each.op_type == "Ceil"]
    if len(durations) != 1:
        raise ValueError(f"the voice has {len(durations)} nodes that round durations, not one")
    for each in graph.node:
        each.output[:] = ["timed_speech" if name == output else name for name in each.output]

    def constant(name: str, value: np.ndarray) -> str:
        graph.initializer.append(numpy_helper.from_array(value, f"timed_{name}"))
        return f"timed_{name}"

    def node(operator: str, *inputs: str, **attributes: Any) -> str:
        name = f"timed_{len(graph.node)}"
        graph.node.append(helper.make_node(operator, inputs, [name], **attributes))
        return name

    flat = constant("flat", np.array([-1]))
    ids = node("Cast", node("Reshape", graph.input[0].name, flat), to=TensorProto.FLOAT)
    size = node("Cast", node("Shape", ids), to=TensorProto.FLOAT)
    mark = constant("mark", np.array([_MARK], np.float32))
    values = node("Concat", node("Reshape", durations[0], flat), ids, size, mark, axis=0)
    # Half a step more, so that rounding towards zero gives the integer.
    values = node("Add", values, constant("half", np.array([0.5], np.float32)))
    values = node("Div", values, constant("scale", np.array([_FULL_SCALE], np.float32)))
    speech = node("Concat", node("Reshape", "timed_speech", flat), values, axis=0)
    shape = constant("shape", np.array([1, 1, 1, -1]))
    graph.node.append(helper.make_node("Reshape", [speech, shape], [output]))


def read_phonemes(samples: FloatArray, config: Mapping[str, Any]) -> TimedSpeech:
    """Return the speech of a timed voice and its phonemes.

    Args:
        samples: float32 [num_samples] in [-1, 1), one or several sentences, each with the values
            that `append_durations` describes; without them, the samples are returned unchanged.
        config: configuration of the voice.
    """
    hop_length = int(config.get("hop_length", _DEFAULT_HOP_LENGTH))
    values = np.rint(samples * 2**15).astype(np.int64)
    symbols = {ids[0]: symbol for symbol, ids in config["phoneme_id_map"].items()}
    parts: list[tuple[FloatArray, list[str], np.ndarray]] = []
    end = len(values)
    while end > 2 and values[end - 1] == _MARK:
        size = int(values[end - 2])
        first = end - 2 - 2 * size
        durations = values[first : first + size]
        start = first - int(durations.sum()) * hop_length
        if start < 0 or first < 0:
            break
        names = [symbols.get(number, "") for number in values[first + size : end - 2]]
        parts.insert(0, (samples[start:first], names, durations))
        end = start
    phonemes: list[Phoneme] = []
    speech, num_samples, rate = [samples[:end]], end, int(config["audio"]["sample_rate"])
    for audio, names, durations in parts:
        times_s = (num_samples + np.append(0, np.cumsum(durations)) * hop_length) / rate
        phonemes += phonemes_of(names, times_s.tolist())
        speech.append(audio)
        num_samples += len(audio)
    return TimedSpeech(np.concatenate(speech), tuple(phonemes))
