"""How many requests may be in flight: fewer as soon as the server says that it is too many, then slowly more again."""

import asyncio
import time

PAUSE_S = 1.0  # refusals within it belong to one burst, and halve the limit once


class AdaptiveLimit:
    """Additive increase, multiplicative decrease, shared by all requests of an event loop: `async with limit`."""

    def __init__(self, most: int) -> None:
        self.most, self.now = most, float(most)
        self._busy, self._halved = 0, -PAUSE_S
        self._room = asyncio.Condition()

    async def __aenter__(self) -> None:
        async with self._room:
            await self._room.wait_for(lambda: self._busy < max(1, int(self.now)))
            self._busy += 1

    async def __aexit__(self, *_: object) -> None:
        async with self._room:
            self._busy -= 1
            self._room.notify()

    def refused(self) -> None:
        """The server said 429."""
        if time.monotonic() - self._halved >= PAUSE_S:
            self.now, self._halved = max(1.0, self.now / 2), time.monotonic()

    async def answered(self) -> None:
        """The server answered: after as many answers as the limit is wide, it grows by one."""
        if self.now < self.most:
            self.now = min(float(self.most), self.now + 1 / self.now)
            async with self._room:
                self._room.notify()
