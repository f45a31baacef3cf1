"""What stands before gradio: no file outside the outputs folder, no large body, no foreign host."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

LOCAL = {"127.0.0.1", "localhost", "::1"}
SLACK = 1_000_000  # bytes of a request around its file
# the page may load nothing from elsewhere; gradio's own scripts and styles are partly inline
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; media-src 'self' blob:; font-src 'self' data:; connect-src 'self' data: blob:; "
    "worker-src 'self' blob:; frame-ancestors 'self'"
)


class TooLarge(Exception):
    """A request's body is over the limit."""


class Guard:
    """ASGI middleware. most: bytes of an upload. local: only names of this machine are accepted as its host.

    The latter keeps a page of another site, whose name its owner lets point to 127.0.0.1, from using the app.
    """

    def __init__(self, app: Any, out: Path, most: int, local: bool):
        self.app, self.out, self.most, self.local = app, out.resolve(), most, local

    async def __call__(self, scope: dict[str, Any], receive: Callable, send: Callable) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        if self.local and urlsplit(f"//{headers.get('host', '')}").hostname not in LOCAL:
            await _refuse(send, 403, "unknown host")
        elif not self._serves(scope["path"]):
            await _refuse(send, 403, "not in the outputs folder")
        elif self._is_too_large(headers.get("content-length", "0")):
            await _refuse(send, 413, "too large")
        else:
            await self._pass(scope, receive, send)

    def _serves(self, path: str) -> bool:
        if "/proxy=" in path:
            return False
        _, asked, file = path.partition("/file=")
        try:
            return not asked or Path(file).resolve().is_relative_to(self.out)
        except (OSError, ValueError):  # of names too long, or with a zero
            return False

    def _is_too_large(self, length: str) -> bool:
        return not length.isdecimal() or int(length) > self.most + SLACK

    async def _pass(self, scope: dict[str, Any], receive: Callable, send: Callable) -> None:
        read, begun = 0, False

        async def counted() -> dict[str, Any]:
            nonlocal read
            message = await receive()
            read += len(message.get("body", b""))
            if read > self.most + SLACK:  # of a body that came without its length
                raise TooLarge
            return message

        async def with_policy(message: dict[str, Any]) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                message["headers"] = [*message.get("headers", []), (b"content-security-policy", POLICY.encode())]
            await send(message)

        try:
            await self.app(scope, counted, with_policy)
        except TooLarge:
            if not begun:
                await _refuse(send, 413, "too large")


async def _refuse(send: Callable[[dict[str, Any]], Awaitable[None]], status: int, reason: str) -> None:
    headers = [(b"content-type", b"text/plain"), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": reason.encode()})
