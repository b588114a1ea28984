"""Files that appear whole or not at all."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from talkinghead.errors import MediaError

# What a full or failing disk answers to a write, which names no file.
_DISK_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS}


@contextmanager
def atomic_path(path: Path | str) -> Iterator[Path]:
    """Write a file so that it appears whole or not at all.

    The body writes to the path it is given: hidden, in the target's own folder (which is made when
    missing), with the target's suffix. At the end the file is flushed to the disk and renamed over
    the target; on any exception, Ctrl-C included, it is removed and the target stays as it was.

    Args:
        path: where the file is to be; a symbolic link is followed.

    Yields:
        The temporary path, where no file is yet.

    Raises:
        MediaError: the target is a directory or a device, the folder cannot be made or written, the
            disk is full.
    """
    target = Path(path)
    temporary: Path | None = None
    try:
        target = _checked(target)
        target.parent.mkdir(parents=True, exist_ok=True)
        # Not the target's name and more: that may be too long.
        temporary = target.with_name(f".{secrets.token_hex(8)}.tmp{target.suffix}")
        yield temporary
        _flush_to_disk(temporary)
        temporary.replace(target)
    except BaseException as error:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and _is_about(error, target, temporary):
            raise unwritable(path, error) from error
        raise


def unwritable(path: Path | str, error: BaseException) -> MediaError:
    """The error for a user whose file cannot be written."""
    why = getattr(error, "strerror", None) or " ".join(str(error).split())
    return MediaError(
        f"{path}: cannot be written ({why}); free space there, or choose another folder"
    )


def _checked(target: Path) -> Path:
    if target.is_dir():
        raise MediaError(f"{target}: is a directory; give the name of a file to write")
    if target.exists() and not target.is_file():
        raise MediaError(f"{target}: is a device or a pipe; give the name of a file to write")
    return target.resolve()


def _is_about(error: OSError, target: Path, temporary: Path | None) -> bool:
    """Whether an error comes from writing the target, not from something else that the body did."""
    if error.filename is None:
        return error.errno in _DISK_ERRORS
    return Path(os.fsdecode(error.filename)) in {target, temporary, *target.parents}


def _flush_to_disk(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())
