"""Atomic writing of files."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import secrets
import shutil
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir

from talkinghead.errors import MediaError

DISK_ERRORS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS})
"""errno codes of a full or failing disk. An OSError with such a code may have no file name."""
# Beginnings of the names of open files, which may be links to files.
_STREAMS = ("/dev/std", "/dev/fd/", "/proc/self/fd/")
# Names of temporary files: machine, process, start of the process, and a random number.
_TEMPORARY_NAME = re.compile(
    r"\.talkinghead-(?P<machine>[0-9a-f]{8})-(?P<pid>\d+)-(?P<start>\d+)-[0-9a-f]{8}\.tmp"
)


@contextmanager
def atomic_path(path: Path | str) -> Iterator[Path]:
    """Yield the path of a temporary file that replaces the target if the `with` body succeeds.

    The temporary file is hidden, in the target's folder (created when missing), with the target's
    suffix. The body creates it. On success it is flushed to disk and renamed over the target, where
    a symbolic link is followed; on any exception, KeyboardInterrupt included, it is removed and the
    target is unchanged. Temporary files of processes that were killed are removed from the folder.

    Raises:
        MediaError: the target is a directory or a device, the folder cannot be created or written,
            or the disk is full.

    Example:
        >>> with atomic_path("results.json") as temporary:
        ...     temporary.write_text("{}")
    """
    target = Path(path)
    temporary: Path | None = None
    try:
        if target.is_dir():
            raise MediaError(f"{target}: is a directory; give the name of a file to write")
        is_stream = str(target).startswith(_STREAMS)
        if is_stream or (target.exists() and not target.is_file()):
            raise MediaError(f"{target}: is a device or a pipe; give the name of a file to write")
        target = target.resolve()
        target.parent.mkdir(parents=True, exist_ok=True)
        remove_stale_files(target.parent)
        # A name that extends the target's could be too long.
        temporary = target.with_name(f"{temporary_name()}{target.suffix}")
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(target)
    except BaseException as error:
        if temporary is not None:
            # On a read-only disk, removing fails too, which must not hide the first error.
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and _is_about(error, target, temporary):
            raise unwritable(path, error) from error
        raise


@contextmanager
def atomic_folder(path: Path | str) -> Iterator[Path]:
    """Yield a new temporary folder that replaces the target if the `with` body succeeds.

    On any exception, it is removed and the target is unchanged.

    Raises:
        MediaError: The folder cannot be written or replaced, or the disk is full.
    """
    target = Path(path).resolve()
    temporary, earlier = target.with_name(temporary_name()), target.with_name(temporary_name())
    try:
        temporary.mkdir(parents=True)
        remove_stale_files(target.parent)
        yield temporary
        # A folder that cannot be renamed, such as a mounted volume, must keep its files.
        if target.exists():
            target.rename(earlier)
        temporary.rename(target)
    except OSError as error:
        if _is_about(error, target, temporary):
            raise unwritable(path, error) from error
        raise
    finally:
        if earlier.exists() and not target.exists():
            earlier.rename(target)
        for folder in (temporary, earlier):
            shutil.rmtree(folder, ignore_errors=True)


def is_disk_full(error: BaseException | None) -> bool:
    """Return whether a full disk caused an error."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        error = error.__cause__
    return False


def temporary_name() -> str:
    """Return the name of a hidden temporary file or folder that names this process."""
    pid = os.getpid()
    machine, start = _machine(), _start_of(pid)
    return f".talkinghead-{machine}-{pid}-{start}-{secrets.token_hex(4)}.tmp"


def temporary_folder() -> TemporaryDirectory[str]:
    """Return a new temporary folder, and remove those of processes that were killed."""
    remove_stale_files(Path(gettempdir()))
    return TemporaryDirectory(prefix=temporary_name())


@cache
def remove_stale_files(folder: Path) -> None:
    """Remove the temporary files in a folder whose processes have died, once per folder.

    Files of other machines and containers are kept, because their processes are not known.
    """
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            match = _TEMPORARY_NAME.match(entry.name)
            if match is None or match["machine"] != _machine():
                continue
            if _start_of(int(match["pid"])) == int(match["start"]):
                continue
            with suppress(OSError):
                path = Path(entry.path)
                shutil.rmtree(path) if entry.is_dir(follow_symlinks=False) else path.unlink()


@cache
def _machine() -> str:
    """Return a hash of the machine and of the process namespace, such as that of a container."""
    try:
        namespace = str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        namespace = ""
    return hashlib.sha256(f"{socket.gethostname()} {namespace}".encode()).hexdigest()[:8]


def _start_of(pid: int) -> int:
    """Return the start time of a process in clock ticks, to distinguish processes with one id.

    Without /proc, the result is 1 for a running process and 0 for another; on Windows always 1.
    """
    try:
        # The name of the program, in parentheses, may contain spaces.
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    except FileNotFoundError:
        if Path("/proc/self/stat").exists():
            return 0
    except (OSError, ValueError, IndexError):
        return 1
    if sys.platform == "win32":  # There, the signal 0 is Ctrl-C.
        return 1
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return 0
    except OSError:
        return 1
    return 1


def unwritable(path: Path | str, error: BaseException) -> MediaError:
    """Return the error for a file that cannot be written."""
    reason = getattr(error, "strerror", None) or " ".join(str(error).split())
    return MediaError(
        f"{path}: cannot be written ({reason}); free space there, or choose another folder"
    )


def _is_about(error: OSError, target: Path, temporary: Path | None) -> bool:
    """Return whether an error was caused by writing the target, not by other code in the body."""
    if error.filename is None:
        return error.errno in DISK_ERRORS
    path = Path(os.fsdecode(error.filename))
    return path in {target, temporary, *target.parents} or temporary in path.parents
