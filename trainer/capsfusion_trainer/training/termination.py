"""SIGTERM ends a run after its current step."""

import signal
from types import FrameType


class Termination:
    """Records a SIGTERM in `asked`, which the loop checks after each step."""

    def __init__(self) -> None:
        self.asked = False

    def __enter__(self) -> "Termination":
        self._before = signal.signal(signal.SIGTERM, self._ask)
        return self

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGTERM, self._before)

    def _ask(self, *_: "int | FrameType | None") -> None:
        self.asked = True
