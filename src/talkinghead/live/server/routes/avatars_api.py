"""Routes of avatars: the library of the server, and uploads."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Form, UploadFile
from pydantic import BaseModel, Field

from talkinghead.errors import UsageError
from talkinghead.live.server.avatar_library import AvatarInfo, Library
from talkinghead.live.server.error_responses import responses_for

router = APIRouter(prefix="/v1/avatars", tags=["avatars"])


class CreatedId(BaseModel):
    """Id of a created object."""

    id: str = Field(examples=["Gx5t0nUg7yq6L4vSsw2rJQ"])


Consent = Annotated[
    bool,
    Form(
        description="Confirmation that the person shown agrees to the generation of videos.",
        examples=[True],
    ),
]


def require_consent(consent: bool) -> None:
    """Raise a `UsageError` without consent."""
    if not consent:
        raise UsageError(
            "consent: send consent=true to confirm that the person shown agrees to the "
            "generation of videos of their face"
        )


@router.get("", responses=responses_for())
async def list_avatars(library: Library) -> list[AvatarInfo]:
    """Return the avatars that a session or a video may use."""
    return await library.list()


@router.post("", status_code=201, responses=responses_for(408))
async def upload_avatar(library: Library, file: UploadFile, consent: Consent = False) -> CreatedId:
    """Upload a photo or a short video of a face, and return the id of an avatar.

    The file is decoded, reduced in size and stored without its metadata, for a limited time. Only
    the returned id gives access to it.
    """
    require_consent(consent)
    return CreatedId(id=await library.add(file))


@router.delete("/{avatar_id}", status_code=204, responses=responses_for(404))
async def delete_avatar(library: Library, avatar_id: str) -> None:
    """Delete an uploaded avatar."""
    library.remove(avatar_id)
