"""`talkinghead serve` in a separate process, for tests of the page and of the API."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager

# Loading the models takes some seconds, and more on a busy machine.
_START_TIMEOUT_S = 180
_STOP_TIMEOUT_S = 30


class LiveServer:
    """A live server on a free port; it can be stopped and started again on the same port.

    Attributes:
        url: Address of the page, without a slash at the end.
    """

    def __init__(self, folder, *overrides, token=None):
        self._log, self._overrides, self.token = folder / "server.log", overrides, token
        self._port = _free_port()
        self.url = f"http://localhost:{self._port}"
        self.process = None

    def start(self):
        """Start the process, and wait until it answers."""
        command = [sys.executable, "-m", "talkinghead", "serve", f"port={self._port}"]
        # With `auto`, a model that has not been exported is exported in the background.
        command += ["backend=torch"]
        command += [f"token={self.token}"] if self.token else []
        with self._log.open("a") as log:
            self.process = subprocess.Popen(
                [*command, *self._overrides], stdout=log, stderr=subprocess.STDOUT
            )
        deadline_s = time.monotonic() + _START_TIMEOUT_S
        while not self._is_healthy():
            assert self.process.poll() is None, f"the server ended:\n{self._log.read_text()}"
            assert time.monotonic() < deadline_s, f"no answer:\n{self._log.read_text()}"
            time.sleep(0.2)

    def stop(self):
        """End the process as Ctrl-C does."""
        self.process.send_signal(signal.SIGINT)
        try:
            self.process.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise

    def request(self, method, path, body=None):
        """Send a JSON request, and return the parsed answer, or None if it is empty."""
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"}
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, headers, method=method)
        with urllib.request.urlopen(request, timeout=60) as response:
            return json.loads(response.read() or "null")

    def _is_healthy(self):
        try:
            self.request("GET", "/healthz")
        except OSError:
            return False
        return True


@contextmanager
def live_server(folder, *overrides, token=None):
    """Run a server with overrides of `conf/serve.yaml`; its log is written to the folder."""
    server = LiveServer(folder, *overrides, token=token)
    server.start()
    try:
        yield server
    finally:
        if server.process.poll() is None:
            server.stop()


def _free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]
