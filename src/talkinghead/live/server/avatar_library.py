"""Faces that clients choose from: a folder of the server, and uploads that expire."""

from __future__ import annotations

import asyncio
import secrets
import time
from pathlib import Path
from typing import Annotated, Literal

from fastapi import UploadFile
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

from talkinghead.errors import UsageError
from talkinghead.live.server.server_settings import ServerSettings, app_state
from talkinghead.live.server.uploads import UploadChecker
from talkinghead.media.reader import VIDEO_SUFFIXES

DEFAULT_ID = "default"
"""Id of the face that the server was started with."""

_PHOTO_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp"}


class AvatarInfo(BaseModel):
    """An avatar of the library."""

    id: str = Field(examples=["anna.jpg"])
    name: str = Field(examples=["anna"])
    kind: Literal["photo", "video"]


class AvatarLibrary:
    """A library of faces by id; ids sent by clients are never used as paths.

    Args:
        settings: The settings of the server.
        checker: The checks of uploads.
        folder: Folder for uploads.
    """

    def __init__(self, settings: ServerSettings, checker: UploadChecker, folder: Path) -> None:
        self._settings, self._checker, self._folder = settings, checker, folder
        self._uploads: dict[str, tuple[Path, float]] = {}
        self._num_pending = 0

    async def list(self) -> list[AvatarInfo]:
        """Return the faces of the server, without the uploads of clients."""
        files = await asyncio.to_thread(self._files)
        return [AvatarInfo(id=key, name=path.stem, kind=_kind(path)) for key, path in files.items()]

    async def find(self, avatar_id: str | None) -> Path:
        """Return the file of a face; None is the server's default face.

        Raises:
            UsageError: There is no such face.
        """
        if avatar_id in self._uploads:
            path, _ = self._uploads[avatar_id]
            self._uploads[avatar_id] = path, time.monotonic()
            return path
        files = await asyncio.to_thread(self._files)
        if avatar_id is None and files:
            return next(iter(files.values()))
        if avatar_id not in files:
            raise UsageError("avatar: unknown or expired; GET /v1/avatars lists the avatars")
        return files[avatar_id]

    async def add(self, upload: UploadFile) -> str:
        """Check and store an uploaded face, and return its id.

        Raises:
            MediaError: The file is not accepted.
            FaceNotFoundError: It shows no face.
        """
        if len(self._uploads) + self._num_pending >= self._settings.max_uploads:
            raise HTTPException(503, "too many uploaded faces; try later", {"Retry-After": "60"})
        avatar_id = secrets.token_urlsafe(16)
        self._num_pending += 1
        try:
            path = await self._checker.prepare(upload, "face", self._folder, avatar_id)
        finally:
            self._num_pending -= 1
        self._uploads[avatar_id] = path, time.monotonic()
        return avatar_id

    def remove(self, avatar_id: str) -> None:
        """Delete an uploaded face.

        Raises:
            UsageError: There is no such upload.
        """
        if avatar_id not in self._uploads:
            raise HTTPException(404, "there is no such upload")
        path, _ = self._uploads.pop(avatar_id)
        path.unlink(missing_ok=True)

    def remove_expired(self) -> None:
        """Delete uploads that were not used for `upload_expiry_s`."""
        oldest_s = time.monotonic() - self._settings.upload_expiry_s
        for avatar_id, (_, used_s) in list(self._uploads.items()):
            if used_s < oldest_s:
                self.remove(avatar_id)

    def _files(self) -> dict[str, Path]:
        files = {DEFAULT_ID: self._settings.face} if self._settings.face else {}
        folder, known = self._settings.avatars, VIDEO_SUFFIXES | _PHOTO_SUFFIXES
        for path in sorted(Path(folder).iterdir()) if folder is not None else ():
            if path.suffix.lower() in known and path.is_file():
                files[path.name] = path
        return files


def _kind(path: Path) -> Literal["photo", "video"]:
    return "video" if path.suffix.lower() in VIDEO_SUFFIXES else "photo"


Library = Annotated[AvatarLibrary, app_state("avatars")]
"""The avatar library as a parameter of a route."""
