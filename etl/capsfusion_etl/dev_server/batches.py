"""Files and batches of the dev-server: results come in random order, and some requests expire on demand."""

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
    """Handlers of /v1/files and /v1/batches; everything is kept in memory.

    Args:
        answer: function from a request body to the status and body of its response.
        seconds: duration of a batch.
        expired: share of the requests that get no response because their batch expires.
        dice: random numbers, for the expired requests and the order of the results.
    """

    def __init__(self, answer: Answer, seconds: float, expired: float, dice: random.Random) -> None:
        self._answer, self._seconds, self._expired, self._dice = answer, seconds, expired, dice
        self._files: dict[str, bytes] = {}
        self._batches: dict[str, dict[str, Any]] = {}
        self._working: set[asyncio.Task[None]] = set()

    def routes(self) -> list[web.RouteDef]:
        """Return the routes to add to the application."""
        return [
            web.post("/v1/files", self.upload),
            web.get("/v1/files/{id}/content", self.content),
            web.post("/v1/batches", self.create),
            web.get("/v1/batches", self.list),
            web.get("/v1/batches/{id}", self.retrieve),
        ]

    async def upload(self, request: web.Request) -> web.Response:
        """Store a file that was sent as a form."""
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
        """Return the bytes of a file."""
        data = self._files.get(request.match_info["id"])
        return web.Response(body=data) if data is not None else _missing("file")

    async def create(self, request: web.Request) -> web.Response:
        """Create a batch and start working on it."""
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
        """Return all batches."""
        return web.json_response({"object": "list", "data": list(self._batches.values()), "has_more": False})

    async def retrieve(self, request: web.Request) -> web.Response:
        """Return one batch."""
        batch = self._batches.get(request.match_info["id"])
        return web.json_response(batch) if batch is not None else _missing("batch")


def _missing(what: str) -> web.Response:
    error = {"message": f"No such {what}", "type": "invalid_request_error", "code": "not_found", "param": None}
    return web.json_response({"error": error}, status=404)
