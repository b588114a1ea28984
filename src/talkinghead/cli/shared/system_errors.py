"""Explain errors of the operating system in one line, with what to do."""

from __future__ import annotations

import errno
import os
import tempfile
from pathlib import Path

from talkinghead.errors import DependencyError, UsageError

_ADVICE = {
    errno.EACCES: "choose a file or folder that this user may read and write",
    errno.EPERM: "choose a file or folder that this user may read and write",
    errno.EROFS: "choose a folder that can be written",
    errno.ENOSPC: "free space there, or choose another folder",
    errno.EDQUOT: "free space there, or choose another folder",
    errno.EFBIG: "choose another folder, or raise the limit of the file size",
    errno.ENAMETOOLONG: "give a shorter name",
    errno.ELOOP: "choose a file that is no loop of symbolic links",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
    errno.ENOMEM: "close other programs, or use fewer workers",
}


def check_environment() -> None:
    """Check what all commands need of the operating system.

    Raises:
        UsageError: The working directory was deleted.
        DependencyError: There is no folder for temporary files.
    """
    try:
        folder = Path.cwd()
    except OSError as error:
        raise UsageError(
            f"the working directory cannot be used ({error.strerror}): change to another (cd)"
        ) from error
    try:
        tempfile.gettempdir()
    except OSError as error:
        raise DependencyError(
            f"there is no folder for temporary files, and {folder} cannot be written: set TMPDIR "
            "to a folder that can be written"
        ) from error


def explain_system_error(error: BaseException) -> str | None:
    """Return one line about a file that cannot be used; None for other errors."""
    if not isinstance(error, OSError) or error.errno not in _ADVICE:
        return None
    path = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else ""
    where = f"{path}: " if path else ""
    return f"{where}{error.strerror}; {_ADVICE[error.errno]}"
