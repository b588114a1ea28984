"""An ONNX export with 8-bit numbers, by ONNX Runtime's tools."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor

from talkinghead.runtime.backend import PARTS, read_metadata


def quantise_onnx(folder: Path, inputs: Mapping[str, tuple[Tensor, ...]]) -> None:
    """Replaces the files of an ONNX export by quantised ones.

    Convolutions are calibrated: their activations get the range that they have on the inputs. The
    transformer's products take each input's own range as it comes, for speech has no typical one.
    The decoder's head stays in full precision: what it draws would show the steps.

    Args:
        folder: a whole export, in full precision.
        inputs: what each part is calibrated with; see `example_inputs`.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic, quantize_static

    parts = read_metadata(folder)["parts"]
    shared: dict[str, Any] = {"per_channel": True, "weight_type": QuantType.QInt8}
    for part in PARTS:
        path, small = folder / f"{part}.onnx", folder / f"{part}.int8.onnx"
        with _without_warnings():  # It advises to prepare the graph: torch's exporter has.
            if part == "encode_audio":
                quantize_dynamic(path, small, op_types_to_quantize=["MatMul"], **shared)
            else:
                arrays = (tensor.numpy() for tensor in inputs[part])
                examples = _one_example(dict(zip(parts[part]["inputs"], arrays, strict=True)))
                quantize_static(
                    path,
                    small,
                    examples,
                    op_types_to_quantize=["Conv", "Gemm"],
                    nodes_to_exclude=_head(path),
                    activation_type=QuantType.QUInt8,  # x86's products take one of each sign.
                    **shared,
                )
        small.replace(path)


@contextmanager
def _without_warnings() -> Iterator[None]:
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


def _head(path: Path) -> list[str]:
    """The nodes that hold the decoder's head."""
    import onnx

    nodes = onnx.load(path).graph.node
    return [node.name for node in nodes if any("decoder.head." in name for name in node.input)]


def _one_example(example: dict[str, Any]) -> Any:
    """A batch as ONNX Runtime's calibration reads it."""
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.examples = iter([example])

        def get_next(self) -> dict[str, Any] | None:
            return next(self.examples, None)

    return Reader()
