"""Routes of videos that are rendered in the background."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Form, UploadFile
from fastapi.responses import FileResponse
from starlette.exceptions import HTTPException

from talkinghead.errors import UsageError
from talkinghead.live.server.avatar_library import Library
from talkinghead.live.server.error_responses import responses_for
from talkinghead.live.server.routes.avatars_api import Consent, CreatedId, require_consent
from talkinghead.live.server.server_settings import Settings
from talkinghead.live.server.video_jobs import Videos, VideoState

router = APIRouter(prefix="/v1/videos", tags=["videos"])


@router.post("", status_code=202, responses=responses_for(404, 408))
async def create_video(
    videos: Videos,
    library: Library,
    settings: Settings,
    face: Annotated[UploadFile | None, Form(description="Photo or short video of a face.")] = None,
    avatar: Annotated[str | None, Form(description="Id of an avatar, instead of a face.")] = None,
    audio: Annotated[UploadFile | None, Form(description="File with speech.")] = None,
    text: Annotated[str | None, Form(description="Text to be spoken, instead of audio.")] = None,
    consent: Consent = False,
) -> CreatedId:
    """Render a video of a face that speaks; poll its state with the returned id."""
    if face is not None:
        require_consent(consent)
    if face is not None and avatar is not None:
        raise UsageError("face and avatar were both given; give one of them, or none")
    if (audio is None) == (not text):
        raise UsageError("give either audio, a file with speech, or text, as fields of a form")
    if text and len(text) > settings.max_text_chars:
        raise UsageError(f"text: {len(text)} characters; at most {settings.max_text_chars}")
    return CreatedId(id=await videos.add(library, face, avatar, audio, text))


@router.get("/{video_id}", responses=responses_for(404))
async def get_video(videos: Videos, video_id: str) -> VideoState:
    """Return the state and the progress of a video."""
    return videos.state(video_id)


@router.get(
    "/{video_id}/file",
    response_class=FileResponse,
    responses={**responses_for(404, 409), 200: {"content": {"video/mp4": {}}}},
)
async def get_video_file(videos: Videos, video_id: str) -> FileResponse:
    """Return the finished video, an MP4 file that is marked as generated."""
    if (state := videos.state(video_id).state) != "done":
        raise HTTPException(409, f"the video is {state}, not done")
    path = videos.get(video_id).output
    return FileResponse(path, media_type="video/mp4", filename="video.mp4")


@router.delete("/{video_id}", status_code=204, responses=responses_for(404))
async def delete_video(videos: Videos, video_id: str) -> None:
    """Cancel the rendering of a video, or delete the finished file."""
    await videos.remove(video_id)
