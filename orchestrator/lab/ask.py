"""One HTTP request on a fresh connection from a chosen address, as health checkers send it."""

from __future__ import annotations

import asyncio
import socket


async def ask(
    source: str, address: str, port: int, path: str, timeout_s: float, *, method: str = "GET", body: bytes = b""
) -> int:
    """Return the status, or 0 when no answer came in time. Marked synthetic: it never counts as a user's request."""
    try:
        async with asyncio.timeout(timeout_s):
            with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
                return await _exchange(sock, source, (address, port), _request(method, path, address, body))
    except (OSError, TimeoutError, ValueError):
        return 0


async def fetch(source: str, address: str, port: int, path: str, timeout_s: float) -> bytes:
    """Return the body of a 200 answer, or nothing when there was none in time."""
    try:
        async with asyncio.timeout(timeout_s):
            reader, writer = await asyncio.open_connection(address, port, local_addr=(source, 0))
            try:
                writer.write(_request("GET", path, address, b""))
                head, _, body = (await reader.read()).partition(b"\r\n\r\n")
            finally:
                writer.close()
    except (OSError, TimeoutError):
        return b""
    return body if head.startswith(b"HTTP/1.1 200") else b""


def _request(method: str, path: str, host: str, body: bytes) -> bytes:
    return (
        f"{method} {path} HTTP/1.1\r\nHost: {host}\r\nX-Synthetic: 1\r\nConnection: close\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    ).encode() + body


async def _exchange(sock: socket.socket, source: str, address: tuple[str, int], request: bytes) -> int:
    loop = asyncio.get_running_loop()
    sock.setblocking(False)
    sock.bind((source, 0))
    await loop.sock_connect(sock, address)
    await loop.sock_sendall(sock, request)
    status_line = b""
    while len(status_line) < len(b"HTTP/1.1 200"):
        data = await loop.sock_recv(sock, 4096)
        if not data:
            return 0
        status_line += data
    return int(status_line[9:12])
