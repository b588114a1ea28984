"""Files on object stores and other file systems that fsspec supports, such as `s3://bucket/a.mp4`.

A URL is kept as text, because `Path` would merge its slashes. PyAV needs local files, so inputs are
downloaded to a temporary folder and outputs are uploaded when they are complete.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias, cast

from talkinghead.errors import DependencyError, MediaError
from talkinghead.paths import expand_home

Location: TypeAlias = Path | str
"""A local file, or the URL of a remote file as text."""

# Two letters at least, so that the drive of a Windows path is not a protocol.
_URL = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)
# Object stores and fsspec's own packages for them. Their uploads appear only when complete.
_OBJECT_STORES = {"s3": "s3fs", "gs": "gcsfs", "az": "adlfs", "abfs": "adlfs"}
_ATOMIC = {*_OBJECT_STORES, "memory"}


def is_remote(location: Location | None) -> bool:
    """Return whether a location is the URL of a remote file."""
    return isinstance(location, str) and _URL.match(location) is not None


def locate(location: Location, folder: Location = Path()) -> Location:
    """Return a location relative to a folder; URLs and absolute paths are independent of it.

    A leading `~/` is the home folder.
    """
    if isinstance(location, str) and is_remote(location):
        return location
    location = expand_home(location) if isinstance(location, str) else location
    if isinstance(folder, str) and is_remote(folder) and not Path(location).is_absolute():
        return f"{folder.rstrip('/')}/{Path(location).as_posix()}"
    return Path(location) if is_remote(folder) else Path(folder) / location


def parent(location: Location) -> Location:
    """Return the folder of a location."""
    return location.rpartition("/")[0] if isinstance(location, str) else location.parent


def file_name(location: Location) -> str:
    """Return the last part of a location."""
    return location.rpartition("/")[2] if isinstance(location, str) else location.name


def open_remote(url: str) -> BinaryIO:
    """Open a remote file for reading, with random access.

    Raises:
        DependencyError: The package of the file system is missing.
        MediaError: The file does not exist or cannot be read.
    """
    with _explained(url, "read"):
        system, path = _file_system(url), _path(url)
        system.info(path)  # obstore opens missing files, and fails when they are closed.
        return cast(BinaryIO, system.open(path, "rb"))


def remote_version(url: str) -> str:
    """Return a text that changes when a remote file changes, from its entity tag or its times.

    Raises:
        DependencyError, MediaError: As for `open_remote`.
    """
    with _explained(url, "read"):
        return str(_file_system(url).ukey(_path(url)))


def download(url: str, folder: Path) -> Path:
    """Copy a remote file to a folder, and return the path of the copy.

    Raises:
        DependencyError, MediaError: As for `open_remote`.
    """
    # A separate folder for each file keeps its name, which messages and formats depend on.
    target = folder / secrets.token_hex(4) / file_name(url)
    target.parent.mkdir()
    with _explained(url, "read"):
        _file_system(url).get_file(_path(url), str(target))
    return target


def upload(path: Path, url: str) -> None:
    """Copy a local file to a remote file, which appears only when it is complete.

    Raises:
        DependencyError: The package of the file system is missing.
        MediaError: The file cannot be written.
    """
    with _explained(url, "written"):
        system, target = _file_system(url), _path(url)
        if _protocol(url) in _ATOMIC:
            system.put_file(str(path), target)
            return
        folder, _, name = target.rpartition("/")
        system.makedirs(folder, exist_ok=True)
        temporary = f"{folder}/.{name}.{secrets.token_hex(4)}.tmp"
        system.put_file(str(path), temporary)
        system.mv(temporary, target)


def _path(url: str) -> str:
    """Return the path of a file in its file system."""
    if _is_in_obstore(url):
        return url.partition("://")[2]
    return str(_file_system(url)._strip_protocol(url))


def _file_system(url: str) -> Any:
    """Return the file system of a URL; fsspec keeps one for each protocol."""
    if _is_in_obstore(url):
        store: Any = import_module("obstore.fsspec").FsspecStore
        return store(_protocol(url))
    import fsspec

    return fsspec.core.url_to_fs(url)[0]


def _protocol(url: str) -> str:
    return url.partition("://")[0].lower()


def _is_in_obstore(url: str) -> bool:
    """Return whether obstore reads a URL: if fsspec's own package is not installed."""
    package = _OBJECT_STORES.get(_protocol(url))
    return package is not None and not find_spec(package) and find_spec("obstore") is not None


@contextmanager
def _explained(url: str, action: str) -> Iterator[None]:
    """Raise the errors of a file system with a message of one line."""
    try:
        yield
    except (DependencyError, MediaError):
        raise
    except ImportError as error:
        raise DependencyError(
            f"{url} cannot be {action} ({error}): pip install 'talkinghead[objects]' for s3, or "
            "fsspec's package for this protocol"
        ) from error
    except FileNotFoundError as error:
        raise MediaError(f"{url}: no such file; check the URL") from error
    except Exception as error:
        # Each file system raises other types of errors.
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise MediaError(
            f"{url}: cannot be {action} ({reason}); check the URL, the credentials and the network"
        ) from error
