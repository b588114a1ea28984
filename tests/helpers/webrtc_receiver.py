"""A receiver of the audio and video of a WebRTC connection."""

import asyncio
from contextlib import suppress

import aiortc


class WebRtcReceiver:
    """A browser that receives the tracks of a connection.

    Args:
        answer: Coroutine function that takes the SDP and the type of the offer and returns the
            answer.

    Attributes:
        received: The audio frames and the video frames that have arrived.
    """

    def __init__(self, answer):
        self.received = {"audio": [], "video": []}
        self.connection = aiortc.RTCPeerConnection()
        self._answer, self._tasks = answer, []
        for kind in self.received:
            self.connection.addTransceiver(kind, "recvonly")
        self.connection.on("track", lambda track: self._tasks.append(self._follow(track)))

    def _follow(self, track):
        async def run():
            with suppress(aiortc.mediastreams.MediaStreamError):
                while True:
                    self.received[track.kind].append(await track.recv())

        return asyncio.ensure_future(run())

    async def connect(self):
        await self.connection.setLocalDescription(await self.connection.createOffer())
        offer = self.connection.localDescription
        answer = await self._answer(offer.sdp, offer.type)
        await self.connection.setRemoteDescription(aiortc.RTCSessionDescription(**answer))
