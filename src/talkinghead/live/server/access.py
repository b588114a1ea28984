"""Access control of all requests: token, origin, host, rates, body sizes and security headers."""

from __future__ import annotations

import asyncio
import base64
import hmac
import re
import time
from collections import OrderedDict
from collections.abc import Callable
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from talkinghead.live.server.error_responses import ClientError
from talkinghead.live.server.server_settings import ServerSettings

SECURITY_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'self'; img-src 'self' blob: data:; media-src 'self' blob:; "
        "connect-src 'self' ws: wss:; object-src 'none'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(self)",
}
_LOCAL_HOSTS = ("localhost", "127.0.0.1", "::1")
_READING = ("GET", "HEAD", "OPTIONS")
_METHODS = (*_READING, "POST", "PATCH", "DELETE", "WEBSOCKET")
_CREATING = re.compile(r"/v1/(sessions|avatars|videos)")
_CREATING_SOCKETS = ("/v1/stream", "/v1/realtime")
_UPLOADING = re.compile(r"/v1/(avatars|videos|sessions/[^/]+/say)")
_NUM_FILES = {"/v1/videos": 2}  # Face and audio; the size of each is checked later.
# Multipart boundaries and form fields around an uploaded file.
_FORM_BYTES = 100_000
_MAX_CLIENTS = 10_000
# Subprotocols of WebSockets in browsers, which cannot send headers: the one that is accepted, the
# prefix before the token in unpadded base64url, and the prefix of OpenAI's client before the token.
_PROTOCOL, _ENCODED_PREFIX = "talkinghead", "talkinghead.token."
_PLAIN_PREFIX = "openai-insecure-api-key."


class RateLimiter:
    """Limit of the rate of events of each client (generic cell rate algorithm).

    Args:
        per_s: Mean rate in events per second.
        burst: Number of events that may happen at once.
    """

    def __init__(self, per_s: float, burst: float) -> None:
        self._interval_s, self._burst_s = 1 / per_s, (burst - 1) / per_s
        self._next_s: OrderedDict[str, float] = OrderedDict()

    def wait_s(self, client: str = "") -> float:
        """Count an event and return 0, or return the time after which it is allowed."""
        now_s = time.monotonic()
        next_s = max(now_s, self._next_s.get(client, 0.0))
        if (wait_s := next_s - now_s - self._burst_s) > 0:
            return wait_s
        self._next_s[client] = next_s + self._interval_s
        self._next_s.move_to_end(client)
        if len(self._next_s) > _MAX_CLIENTS:
            self._next_s.popitem(last=False)
        return 0.0


class AccessControl:
    """ASGI middleware that checks every request before any route.

    Args:
        app: The application.
        settings: The settings of the server.
        count: Function that counts responses; it takes the method, the route and the status.
    """

    def __init__(
        self, app: ASGIApp, settings: ServerSettings, count: Callable[[str, str, int], None]
    ) -> None:
        self._app, self._settings, self._count = app, settings, count
        self._requests = RateLimiter(settings.requests_per_s, 3 * settings.requests_per_s)
        per_min = settings.creations_per_min
        self._creations = RateLimiter(per_min / 60, max(1, per_min / 3))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check a request, and pass it on."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope.get("method") == "HEAD":
            # The routes are those of GET. The web server, which has its own copy, sends no body.
            scope = {**scope, "method": "GET"}
        send = self._with_headers(scope, send)
        token = _take_token(scope)
        try:
            self._check(scope, token)
        except HTTPException as error:
            await _refuse(ClientError.of(error), scope, receive, send)
            return
        if scope["type"] == "http":
            receive = self._limited(scope, receive)
        await self._app(scope, receive, send)

    def _check(self, scope: Scope, token: str) -> None:
        """Raise an `HTTPException` for a request that is not allowed."""
        headers, path = Headers(scope=scope), scope["path"]
        is_socket = scope["type"] == "websocket"
        method = "GET" if is_socket else scope["method"]
        self._check_host(headers.get("host", ""))
        if is_socket or method not in _READING:
            self._check_origin(headers)
        client = (scope.get("client") or ("", 0))[0]
        _check_rate(self._requests, client)
        is_page = method in _READING and (path == "/" or path.startswith("/static/"))
        if self._settings.token and path != "/healthz" and not is_page:
            given, wanted = token.encode(), self._settings.token.encode()
            if not hmac.compare_digest(given, wanted):
                raise HTTPException(401, "the token is missing or wrong: send the server's token")
        if (is_socket and path in _CREATING_SOCKETS) or (
            method == "POST" and _CREATING.fullmatch(path)
        ):
            _check_rate(self._creations, client)

    def _check_host(self, host: str) -> None:
        """Refuse unknown host names, to prevent DNS rebinding."""
        allowed = self._settings.allowed_hosts
        if self._settings.is_local:
            allowed = (*_LOCAL_HOSTS, self._settings.host, *allowed)
        if allowed and _host_name(host) not in allowed:
            raise HTTPException(
                403, "this host name is not allowed; use the printed address, or set allowed_hosts"
            )

    def _check_origin(self, headers: Headers) -> None:
        """Refuse requests of pages of other web sites."""
        origin = headers.get("origin")
        if origin is None or origin in self._settings.cors_origins:
            return
        if origin.partition("://")[2] != headers.get("host"):
            raise HTTPException(403, "requests of other web sites are not allowed: cors_origins=")

    def _limited(self, scope: Scope, receive: Receive) -> Receive:
        """Limit the size of a body and the time between its parts."""
        limit = self._settings.max_json_bytes
        if _UPLOADING.fullmatch(scope["path"]):
            num_files = _NUM_FILES.get(scope["path"], 1)
            limit = num_files * self._settings.max_upload_bytes + _FORM_BYTES
        declared = int(Headers(scope=scope).get("content-length", 0))
        num_bytes, is_complete = 0, False

        async def limited() -> Message:
            nonlocal num_bytes, is_complete
            if is_complete:  # The disconnect may come at any time.
                return await receive()
            if declared > limit:
                raise HTTPException(413, f"the request is larger than {limit:,} bytes")
            try:
                async with asyncio.timeout(self._settings.body_timeout_s):
                    message = await receive()
            except TimeoutError:
                raise HTTPException(408, "the body was not received in time") from None
            num_bytes += len(message.get("body", b""))
            is_complete = not message.get("more_body", False)
            if num_bytes > limit:
                raise HTTPException(413, f"the request is larger than {limit:,} bytes")
            return message

        return limited

    def _with_headers(self, scope: Scope, send: Send) -> Send:
        """Add the security headers or the subprotocol to a response, and count it."""

        async def with_headers(message: Message) -> None:
            if message["type"] in ("http.response.start", "websocket.http.response.start"):
                headers = MutableHeaders(scope=message)
                for name, value in SECURITY_HEADERS.items():
                    headers.setdefault(name, value)
                if scope["path"].startswith("/v1/"):
                    headers.setdefault("Cache-Control", "no-store")
                route = getattr(scope.get("route"), "path", "other")
                method = scope.get("method", "WEBSOCKET")
                method = method if method in _METHODS else "other"
                self._count(method, route, message["status"])
            if message["type"] == "websocket.accept" and _PROTOCOL in scope["subprotocols"]:
                # Browsers close a WebSocket whose server accepts none of their subprotocols.
                message["subprotocol"] = message.get("subprotocol") or _PROTOCOL
            await send(message)

        return with_headers


def _take_token(scope: Scope) -> str:
    """Return the token of a request; remove it from the subprotocols of a WebSocket."""
    scheme, _, token = Headers(scope=scope).get("authorization", "").partition(" ")
    tokens = [token.strip()] if scheme.lower() == "bearer" else []
    offered = scope.get("subprotocols", [])
    for name in offered:
        if name.startswith(_ENCODED_PREFIX):
            tokens.append(_from_base64(name.removeprefix(_ENCODED_PREFIX)))
        elif name.startswith(_PLAIN_PREFIX):
            tokens.append(name.removeprefix(_PLAIN_PREFIX))
    if offered:
        secret = (_ENCODED_PREFIX, _PLAIN_PREFIX)
        scope["subprotocols"] = [name for name in offered if not name.startswith(secret)]
    return tokens[0] if tokens else ""


def _from_base64(text: str) -> str:
    """Decode unpadded base64url; the result of invalid text is empty."""
    try:
        return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)).decode()
    except ValueError:
        return ""


def _check_rate(limiter: RateLimiter, client: str) -> None:
    if wait_s := limiter.wait_s(client):
        headers = {"Retry-After": str(1 + int(wait_s))}
        raise HTTPException(429, "too many requests; wait and try again", headers)


def _host_name(host: str) -> str:
    """Return the name in a Host header, without the port and without brackets."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


async def _refuse(error: ClientError, scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "http" or "websocket.http.response" in scope.get("extensions", {}):
        await error.response()(scope, receive, send)
    else:
        await send({"type": "websocket.close", "code": 1008, "reason": error.message})
