"""Tests of the answers to WebRTC offers."""

import asyncio
import re

import pytest

from talkinghead.errors import UsageError

aiortc = pytest.importorskip("aiortc")

from talkinghead.live.session.transport.webrtc import WebRtcPeer  # noqa: E402 - needs aiortc


def answer_to(change, kinds=("audio", "video")):
    """Return the answer to an offer to receive media, after a change of its SDP."""

    async def run():
        client = aiortc.RTCPeerConnection()
        for kind in kinds:
            client.addTransceiver(kind, "recvonly")
        await client.setLocalDescription(await client.createOffer())
        peer = WebRtcPeer(lambda samples, sample_rate: None, lambda: None)
        try:
            return await peer.answer(change(client.localDescription.sdp), "offer")
        finally:
            await peer.close()
            await client.close()

    return asyncio.run(run())


def test_answer_sends_audio_and_video():
    sdp = answer_to(lambda sdp: sdp)["sdp"]
    assert [sdp.count(f"m={kind} ") for kind in ("audio", "video")] == [1, 1]
    assert sdp.count("a=sendonly") == 2


@pytest.mark.parametrize(
    ("known", "other"),
    [("(VP8|H264)/90000", "VP7/90000"), ("opus/48000/2|PCM[UA]/8000|G722/8000", "speex/16000")],
)
def test_offer_without_a_supported_codec_is_refused(known, other):
    with pytest.raises(UsageError, match=r"no codec in common: VP8 or H\.264 video"):
        answer_to(lambda sdp: re.sub(known, other, sdp))


def test_offer_without_video_is_refused():
    with pytest.raises(UsageError, match="must have audio and video"):
        answer_to(lambda sdp: sdp, kinds=("audio",))
