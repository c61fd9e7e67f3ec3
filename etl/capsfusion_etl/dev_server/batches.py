"""The dev-server's files and batches: answers come in any order, and some not at all if it is told so."""

import asyncio
import json
import random
import time
import uuid
from collections.abc import Callable
from typing import Any

from aiohttp import web

Answer = Callable[[dict[str, Any]], tuple[int, dict[str, Any]]]


class Batches:
    """POST and GET of /v1/files and /v1/batches, in memory.

    Args:
        answer: request body -> status and body of its answer.
        seconds: how long a batch takes.
        expired: share of the requests that are not answered before it expires.
    """

    def __init__(self, answer: Answer, seconds: float, expired: float, dice: random.Random) -> None:
        self._answer, self._seconds, self._expired, self._dice = answer, seconds, expired, dice
        self._files: dict[str, bytes] = {}
        self._batches: dict[str, dict[str, Any]] = {}
        self._working: set[asyncio.Task[None]] = set()

    def routes(self) -> list[web.RouteDef]:
        """What to add to the application."""
        return [
            web.post("/v1/files", self.upload),
            web.get("/v1/files/{id}/content", self.content),
            web.post("/v1/batches", self.create),
            web.get("/v1/batches", self.list),
            web.get("/v1/batches/{id}", self.retrieve),
        ]

    async def upload(self, request: web.Request) -> web.Response:
        """A file, as a form."""
        form = await request.post()
        part = form["file"]
        data = part.file.read() if isinstance(part, web.FileField) else str(part).encode()
        return web.json_response(self._keep(data))

    def _keep(self, data: bytes) -> dict[str, Any]:
        name = f"file-{uuid.uuid4().hex[:12]}"
        self._files[name] = data
        return {
            "id": name, "object": "file", "bytes": len(data), "created_at": int(time.time()),
            "filename": f"{name}.jsonl", "purpose": "batch", "status": "processed",
        }  # fmt: skip

    async def content(self, request: web.Request) -> web.Response:
        """The bytes of a file."""
        data = self._files.get(request.match_info["id"])
        return web.Response(body=data) if data is not None else _missing("file")

    async def create(self, request: web.Request) -> web.Response:
        """Begin to work on a batch."""
        asked = await request.json()
        if asked["input_file_id"] not in self._files:
            return _missing("file")
        name = f"batch-{uuid.uuid4().hex[:12]}"
        self._batches[name] = {
            "id": name, "object": "batch", "endpoint": asked["endpoint"], "input_file_id": asked["input_file_id"],
            "completion_window": asked["completion_window"], "status": "in_progress", "created_at": int(time.time()),
            "metadata": asked.get("metadata"), "output_file_id": None, "error_file_id": None, "errors": None,
        }  # fmt: skip
        task = asyncio.get_running_loop().create_task(self._work(name))
        self._working.add(task)
        task.add_done_callback(self._working.discard)
        return web.json_response(self._batches[name])

    async def _work(self, name: str) -> None:
        await asyncio.sleep(self._seconds)
        batch = self._batches[name]
        good: list[str] = []
        bad: list[str] = []
        expired = False
        for line in self._files[batch["input_file_id"]].splitlines():
            request = json.loads(line)
            if self._dice.random() < self._expired:
                expired = True
                continue
            status, body = self._answer(request["body"])
            entry = {"id": uuid.uuid4().hex, "custom_id": request["custom_id"], "error": None}
            entry["response"] = {"status_code": status, "request_id": entry["id"], "body": body}
            (good if status == 200 else bad).append(json.dumps(entry))
        for kind, lines in (("output_file_id", good), ("error_file_id", bad)):
            self._dice.shuffle(lines)
            if lines:
                batch[kind] = self._keep("\n".join(lines).encode())["id"]
        batch["status"] = "expired" if expired else "completed"

    async def list(self, _: web.Request) -> web.Response:
        """All batches."""
        return web.json_response({"object": "list", "data": list(self._batches.values()), "has_more": False})

    async def retrieve(self, request: web.Request) -> web.Response:
        """One batch."""
        batch = self._batches.get(request.match_info["id"])
        return web.json_response(batch) if batch is not None else _missing("batch")


def _missing(what: str) -> web.Response:
    error = {"message": f"No such {what}", "type": "invalid_request_error", "code": "not_found", "param": None}
    return web.json_response({"error": error}, status=404)
