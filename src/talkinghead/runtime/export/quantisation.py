"""Quantise an ONNX export to int8 with ONNX Runtime."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from torch import Tensor

from talkinghead.runtime.exported_generator import PARTS, read_metadata


def quantise_onnx(folder: Path, inputs: Mapping[str, tuple[Tensor, ...]]) -> None:
    """Replace the files of an ONNX export with quantised int8 files.

    Convolutions are quantised statically: the inputs calibrate the range of their activations. The
    matrix products of the transformer are quantised dynamically, because the range of speech
    varies. The decoder's head stays in full precision: quantisation steps would be visible in its
    output.

    Args:
        folder: an export in full precision.
        inputs: calibration inputs of each part; see `example_inputs`.
    """
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic, quantize_static

    parts = read_metadata(folder)["parts"]
    shared: dict[str, Any] = {"per_channel": True, "weight_type": QuantType.QInt8}
    for part in PARTS:
        path, small = folder / f"{part}.onnx", folder / f"{part}.int8.onnx"
        with _warnings_disabled():  # They ask for preprocessing done by torch.
            if part == "encode_audio":
                quantize_dynamic(path, small, op_types_to_quantize=["MatMul"], **shared)
            else:
                arrays = (tensor.numpy() for tensor in inputs[part])
                named = dict(zip(parts[part]["inputs"], arrays, strict=True))
                nodes = onnx.load(path).graph.node
                quantize_static(
                    path,
                    small,
                    SimpleNamespace(get_next=partial(next, iter([named]), None)),
                    op_types_to_quantize=["Conv", "Gemm"],
                    nodes_to_exclude=[
                        node.name for node in nodes if any("decoder.head." in i for i in node.input)
                    ],
                    # x86 instructions multiply unsigned activations by signed weights.
                    activation_type=QuantType.QUInt8,
                    **shared,
                )
        small.replace(path)


@contextmanager
def _warnings_disabled() -> Iterator[None]:
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
