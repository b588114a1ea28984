"""Atomic writing of files."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from talkinghead.errors import MediaError

# errno codes of a full or failing disk. An OSError with such a code may have no file name.
_DISK_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS}


@contextmanager
def atomic_path(path: Path | str) -> Iterator[Path]:
    """Yield the path of a temporary file that replaces the target if the `with` body succeeds.

    The temporary file is hidden, in the target's folder (created when missing), with the target's
    suffix. The body creates it. On success it is flushed to disk and renamed over the target, where
    a symbolic link is followed; on any exception, KeyboardInterrupt included, it is removed and the
    target is unchanged.

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
        if target.exists() and not target.is_file():
            raise MediaError(f"{target}: is a device or a pipe; give the name of a file to write")
        target = target.resolve()
        target.parent.mkdir(parents=True, exist_ok=True)
        # The name is random, as a name that extends the target's could be too long.
        temporary = target.with_name(f".{secrets.token_hex(8)}.tmp{target.suffix}")
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(target)
    except BaseException as error:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and _is_about(error, target, temporary):
            raise unwritable(path, error) from error
        raise


def unwritable(path: Path | str, error: BaseException) -> MediaError:
    """Return the error for a file that cannot be written."""
    reason = getattr(error, "strerror", None) or " ".join(str(error).split())
    return MediaError(
        f"{path}: cannot be written ({reason}); free space there, or choose another folder"
    )


def _is_about(error: OSError, target: Path, temporary: Path | None) -> bool:
    """Return whether an error was caused by writing the target, not by other code in the body."""
    if error.filename is None:
        return error.errno in _DISK_ERRORS
    return Path(os.fsdecode(error.filename)) in {target, temporary, *target.parents}
