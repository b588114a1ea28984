"""Tests of the process that sends frames by WebRTC."""

import asyncio
import os
import signal
import subprocess
import sys
from fractions import Fraction

import cv2
import numpy as np
import psutil
import pytest
from helpers.media_files import smooth

from talkinghead.errors import TalkingHeadError
from talkinghead.live.live_avatar import LiveFrame
from talkinghead.live.session.transport.peer_process import PeerProcess

pytest.importorskip("aiortc")

from helpers.webrtc_receiver import WebRtcReceiver

WIDTH, HEIGHT = 128, 96


def make_frame(number, width=WIDTH, height=HEIGHT):
    audio = 0.3 * np.sin(np.arange(1920) * np.pi / 48).astype(np.float32)  # 40 periods.
    return LiveFrame(smooth(height, width), audio, Fraction(number, 25), Fraction(1, 25))


class Browser(WebRtcReceiver):
    """A browser that receives the tracks of a peer process."""

    def __init__(self, peer):
        super().__init__(peer.answer)
        self.peer = peer

    async def wait(self, count, first=0):
        """Send frames until the browser has received a number of images."""
        for number in range(first, first + 1000):
            if self.peer.is_connected:
                self.peer.put(make_frame(number))
            if len(self.received["video"]) >= count:
                return
            await asyncio.sleep(0.02)
        raise AssertionError(f"{len(self.received['video'])} images arrived")


def run_with_peer(test):
    """Run a coroutine function with a peer process and the states that it reports."""

    async def run():
        states = []
        peer = PeerProcess(lambda samples, sample_rate: None, states.append)
        try:
            await asyncio.wait_for(test(peer, states), 60)
        finally:
            await peer.close()

    asyncio.run(run())


def child():
    """Return the process of the peer."""
    found = [one for one in psutil.Process().children() if "spawn_main" in " ".join(one.cmdline())]
    return found[-1]


def test_process_does_not_load_pytorch():
    names = "peer_process", "webrtc"
    imports = "; ".join(f"import talkinghead.live.session.transport.{name}" for name in names)
    code = f"import sys; {imports}; assert not {{'torch', 'cv2'}} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_browser_receives_the_images_and_the_audio():
    async def test(peer, states):
        browser = Browser(peer)
        await browser.connect()
        await browser.wait(30)
        assert states == [True]
        image = browser.received["video"][-1].to_ndarray(format="rgb24").astype(int)
        assert image.shape == (HEIGHT, WIDTH, 3)
        assert np.abs(image - smooth(HEIGHT, WIDTH)).mean() < 8  # VP8 at a low rate.
        audio = np.concatenate([frame.to_ndarray().ravel() for frame in browser.received["audio"]])
        assert np.abs(audio[-4800:]).mean() > 1000
        await browser.connection.close()

    run_with_peer(test)


@pytest.mark.slow
def test_page_that_is_loaded_again_and_a_killed_process_are_replaced():
    async def test(peer, states):
        first, second, third = Browser(peer), Browser(peer), Browser(peer)
        await first.connect()
        await first.wait(5)
        await second.connect()
        await second.wait(5, first=1000)
        child().kill()
        while peer.is_connected:
            await asyncio.sleep(0.02)
        peer.put(make_frame(2000))  # Without effect.
        lost = asyncio.create_task(peer.answer("v=0", "offer"))
        while not (peer._process and peer._process.is_alive):
            await asyncio.sleep(0)
        child().kill()
        with pytest.raises(TalkingHeadError, match="send another offer"):
            await lost
        await third.connect()
        await third.wait(5, first=2001)
        assert states[-2:] == [False, True]
        for browser in (first, second, third):
            await browser.connection.close()

    run_with_peer(test)


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="needs POSIX signals")
def test_stopped_process_delays_nothing():
    async def test(peer, states):
        browser = Browser(peer)
        await browser.connect()
        await browser.wait(5)
        before = peer.num_dropped
        os.kill(child().pid, signal.SIGSTOP)
        started_s = asyncio.get_running_loop().time()
        for number in range(1000, 1400):
            peer.put(make_frame(number))
        assert asyncio.get_running_loop().time() - started_s < 2
        assert peer.num_dropped - before >= 397
        os.kill(child().pid, signal.SIGCONT)
        await browser.wait(len(browser.received["video"]) + 5, first=1400)
        await browser.connection.close()

    run_with_peer(test)


def test_large_images_are_reduced():
    async def test(peer, states):
        browser = Browser(peer)
        await browser.connect()
        await browser.wait(1)
        size = peer._write(smooth(1001, 2001), peer._shared)
        assert size == (1280, 640)
        slot = peer._num_sent % 3
        rgb = cv2.cvtColor(peer._shared.image(slot, *size), cv2.COLOR_YUV2RGB_I420)
        expected = cv2.resize(smooth(1001, 2001), (1280, 640), interpolation=cv2.INTER_AREA)
        assert np.abs(rgb.astype(int) - expected).mean() < 3
        await browser.connection.close()

    run_with_peer(test)
