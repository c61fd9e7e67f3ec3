"""The dev-server: an HTTP server with the part of the OpenAI API that this project uses, and faults on demand.

For tests, load tests and dry runs. Its "model" repeats sentence 1 of the prompt, finds every caption good when it is
asked for a second opinion, and costs nothing.
"""

import asyncio
import json
import random
import re
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from capsfusion_etl.dev_server.batches import Batches

FAULTS = ("429", "500", "slow", "cut", "malformed", "empty", "filtered", "reset", "expired")
_ASKS_OPINION = '{"verdict":'
_SENTENCES = re.compile(r"(?:Sentence 1|Description): (?P<raw>.*?)(?: Sentence 2: (?P<synthetic>.*))?$", re.DOTALL)


@dataclass
class Behaviour:
    """How the server responds.

    Attributes:
        latency_s: seconds before each chat response.
        faults: name in FAULTS -> share of the requests that it affects; `expired` affects only batches.
        api_key: the only API key that is accepted; None accepts any.
        model: the only model that is served; None serves any.
        slow_s: additional seconds of a `slow` response.
        batch_s: seconds that a batch takes.
        random_usage: whether responses report a random number of tokens, up to what the request allowed.
        says: text of every chat response; None repeats sentence 1 of the prompt.
        opinions: verdict of a second opinion -> share of the opinions; the others are `good`.
        schemas: whether `response_format` is supported; if not, a request with one gets status 400.
        unknown: other parameters of a request that get status 400.
        refuses: message of status 400 for every request, also in batches; None answers.
        usage: whether responses report their tokens.
        seed: seed of all random numbers.
        asked: number of responses so far, by kind.
    """

    latency_s: float = 0.0
    faults: dict[str, float] = field(default_factory=dict)
    api_key: str | None = None
    model: str | None = None
    slow_s: float = 30.0
    batch_s: float = 0.0
    random_usage: bool = False
    says: str | None = None
    opinions: dict[str, float] = field(default_factory=dict)
    schemas: bool = True
    unknown: tuple[str, ...] = ()
    refuses: str | None = None
    usage: bool = True
    seed: int = 0
    asked: dict[str, int] = field(default_factory=dict)


def application(behaviour: Behaviour) -> web.Application:
    """Build the application with the routes /v1/chat/completions, /v1/models, /v1/files and /v1/batches."""
    dice = random.Random(behaviour.seed)

    def count(kind: str) -> None:
        behaviour.asked[kind] = behaviour.asked.get(kind, 0) + 1

    async def chat(request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(behaviour.latency_s)
        asked = await request.json()
        refusal = _refusal(behaviour, request, asked)
        if behaviour.refuses is not None:
            count("refused")
            return _error(400, "invalid_request_error", behaviour.refuses)
        for name in (*behaviour.unknown, *(() if behaviour.schemas else ("response_format",))):
            if name in asked:
                count(f"no {name}")
                return _error(400, "invalid_request_error", f"Unsupported parameter: '{name}' with this model")
        fault = _pick(dice, behaviour.faults)
        count("refused" if refusal else fault or "answered")
        return refusal or await _answer(request, asked, fault, behaviour, dice)

    def of_a_batch(asked: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        fault = _pick(
            dice, {k: v for k, v in behaviour.faults.items() if k not in ("reset", "slow", "429", "malformed")}
        )
        count(f"batch {fault or 'answered'}")
        if behaviour.refuses is not None:
            return 400, {"error": {"message": behaviour.refuses, "code": "insufficient_quota"}}
        if fault == "500":
            return 500, {"error": {"message": "The server had an error", "code": "server_error"}}
        return 200, completion(asked, fault, dice if behaviour.random_usage else None)

    async def models(_: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": [{"id": behaviour.model or "any", "object": "model"}]})

    app = web.Application(client_max_size=2**28)
    app.add_routes([web.post("/v1/chat/completions", chat), web.get("/v1/models", models)])
    app.add_routes(Batches(of_a_batch, behaviour.batch_s, behaviour.faults.get("expired", 0.0), dice).routes())
    return app


def _refusal(behaviour: Behaviour, request: web.Request, asked: dict[str, Any]) -> web.Response | None:
    if behaviour.api_key and request.headers.get("Authorization") != f"Bearer {behaviour.api_key}":
        return _error(401, "invalid_api_key", "Incorrect API key provided")
    if behaviour.model and asked.get("model") != behaviour.model:
        return _error(404, "model_not_found", f"The model {asked.get('model')!r} does not exist")
    return None


def _pick(dice: random.Random, faults: dict[str, float]) -> str | None:
    roll = dice.random()
    for name, share in faults.items():
        roll -= share if name != "expired" else 0
        if roll < 0:
            return name
    return None


async def _answer(
    request: web.Request, asked: dict[str, Any], fault: str | None, behaviour: Behaviour, dice: random.Random
) -> web.StreamResponse:
    if fault == "429":
        return _error(429, "rate_limit_exceeded", "Slow down", {"Retry-After": "0.2"})
    if fault == "500":
        return _error(500, "server_error", "The server had an error")
    if fault == "reset":
        if request.transport is not None:
            request.transport.abort()
        return web.Response()
    if fault == "malformed":
        return web.Response(text='{"choices": [{"message": {"content": "half', content_type="application/json")
    if fault == "slow":
        await asyncio.sleep(behaviour.slow_s)
    opinion = _pick(dice, behaviour.opinions) or "good"
    body = completion(asked, fault, dice if behaviour.random_usage else None, opinion)
    if behaviour.says is not None and body["choices"]:
        body["choices"][0]["message"]["content"] = behaviour.says
    if not behaviour.usage:
        del body["usage"]
    return web.json_response(body)


def completion(
    asked: dict[str, Any], fault: str | None = None, usage: random.Random | None = None, opinion: str = "good"
) -> dict[str, Any]:
    """Return the body of a chat completion that repeats sentence 1 of the prompt, or gives a second opinion.

    Args:
        asked: the body of the request; with a `response_format` the text is the JSON object {"caption": ...}.
        fault: `cut` halves the text, `filtered` removes it, `empty` returns no choices.
        usage: random numbers for the token counts; None counts words.
        opinion: the verdict, if the prompt asks for one.
    """
    content = asked["messages"][-1]["content"]
    prompt = content if isinstance(content, str) else " ".join(part.get("text", "a picture") for part in content)
    found = _SENTENCES.search(prompt)
    text = f"{(found['raw'] if found else prompt).strip().rstrip('.')}."
    if _ASKS_OPINION in prompt:
        text = json.dumps({"verdict": opinion, "wrong": "" if opinion == "good" else prompt.rpartition("Caption: ")[2]})
    elif asked.get("response_format"):
        text = json.dumps({"caption": text})
    reason = {"cut": "length", "filtered": "content_filter"}.get(fault or "", "stop")
    said = {"cut": text[: len(text) // 2], "filtered": None}.get(fault or "", text)
    read, written = len(prompt.split()), len((said or "").split())
    if usage is not None:
        limit = asked.get("max_completion_tokens") or asked["max_tokens"]
        read, written = usage.randint(1, len(prompt.encode())), usage.randint(1, limit)
    return {
        "id": "chatcmpl-dev",
        "object": "chat.completion",
        "created": 0,
        "model": asked["model"],
        "choices": []
        if fault == "empty"
        else [{"index": 0, "message": {"role": "assistant", "content": said}, "finish_reason": reason}],
        "usage": {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written},
    }


def _error(status: int, code: str, message: str, headers: dict[str, str] | None = None) -> web.Response:
    body = json.dumps({"error": {"message": message, "type": code, "code": code, "param": None}})
    return web.Response(status=status, text=body, content_type="application/json", headers=headers)


def parse_shares(option: str, texts: list[str], names: tuple[str, ...]) -> dict[str, float]:
    """Parse `["429=0.1", "cut=0.02"]`, the values of an option, into the share of each of `names`.

    Raises:
        InputError: an unknown name, or a share that is not a number from 0 to 1.
    """
    from capsfusion_etl.errors import InputError

    shares = {}
    for text in texts:
        name, _, share = text.partition("=")
        try:
            shares[name] = float(share)
        except ValueError:
            raise InputError(f"{option}: expected name=share, such as {names[0]}=0.1, got {text!r}") from None
        if name not in names or not 0 <= shares[name] <= 1:
            raise InputError(
                f"{option} {text}: the name must be one of {', '.join(names)}, the share a number from 0 to 1"
            )
    return shares


def serve(behaviour: Behaviour, host: str, port: int) -> None:
    """Run the server until it is interrupted."""
    web.run_app(application(behaviour), host=host, port=port, print=None, handle_signals=True)
