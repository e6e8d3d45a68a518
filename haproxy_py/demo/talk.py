"""Sends texts over a WebSocket and prints what comes back: `python -m haproxy_py.demo.talk ws://… TEXT…`."""

from __future__ import annotations

import asyncio
import sys

import aiohttp

TIMEOUT = 10.0  # seconds for an answer


async def talk(url: str, texts: list[str]) -> None:
    """One answer per text, on one connection."""
    async with aiohttp.ClientSession() as session, session.ws_connect(url) as socket:
        for text in texts:
            await socket.send_str(text)
            print(f"{text} -> {await socket.receive_str(timeout=TIMEOUT)}")


if __name__ == "__main__":
    try:
        asyncio.run(talk(sys.argv[1], sys.argv[2:]))
    except (IndexError, aiohttp.ClientError, TimeoutError, TypeError) as problem:
        sys.exit(f"no conversation: {problem or type(problem).__name__}")
