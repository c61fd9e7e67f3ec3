"""Test what a server refuses: a parameter is left out, a row costs itself, and everything stops the run."""

from collections.abc import Callable
from typing import Any

import httpx2
import openai
import pytest
from capsfusion_etl.dev_server import Behaviour
from capsfusion_etl.engines import FuserConfig, Question
from capsfusion_etl.engines.openai import OpenAIFuser
from capsfusion_etl.engines.openai_refusals import (
    MANY_IN_A_ROW,
    MANY_TOO_LARGE,
    Refusals,
    cannot_pay,
    is_of_row,
    words_of,
)
from capsfusion_etl.errors import InputError, RetryError
from capsfusion_etl.stages.fuse.attempts import Settled, settle

Start = Callable[..., tuple[str, Behaviour]]


def ask(base_url: str, count: int = 40, **changes: Any) -> list[Settled]:
    config = FuserConfig(name="openai", model="m", base_url=base_url, retries=0, **changes)
    questions = [Question(f"{i:064x}", f"Bridge number {i} in Lisbon", "A bridge over water.") for i in range(count)]
    return list(settle(OpenAIFuser(config), questions, config))


def refusal(message: str, **fields: str) -> openai.BadRequestError:
    response = httpx2.Response(400, request=httpx2.Request("POST", "http://a.example/v1"))
    return openai.BadRequestError("Error code: 400", response=response, body={"message": message, **fields})


@pytest.mark.parametrize("unknown", [("temperature",), ("seed", "temperature"), ("max_completion_tokens",)])
def test_a_parameter_that_a_server_does_not_take_is_left_out(
    start: Start, unknown: tuple[str, ...], capfd: pytest.CaptureFixture[str]
) -> None:
    base_url, behaviour = start(unknown=unknown, schemas=False)
    assert {s.judgement.verdict for s in ask(base_url)} == {"accepted"}
    assert behaviour.asked["answered"] == 40
    said = capfd.readouterr().err
    assert all(said.count(f"does not take {name}:") == 1 for name in (*unknown, "response_format"))


@pytest.mark.parametrize("count", [2, 3, 40])
def test_a_server_that_refuses_everything_stops_the_run_with_its_own_words(start: Start, count: int) -> None:
    base_url, behaviour = start(refuses="This model is retired: use m-2")
    with pytest.raises(InputError, match="refuses every request: This model is retired: use m-2"):
        ask(base_url, count=count)
    assert behaviour.asked["refused"] <= 40


def test_a_limit_on_tokens_that_a_server_refuses_is_not_dropped(start: Start) -> None:
    base_url, _ = start(unknown=("max_completion_tokens", "max_tokens"), schemas=False)
    with pytest.raises(InputError, match="refuses every request: Unsupported parameter: 'max_tokens'"):
        ask(base_url)


@pytest.mark.parametrize(
    ("message", "of_row"),
    [
        ("This model's maximum context length is 4096 tokens", True),
        ("The response was filtered due to the content management policy", True),
        ("Your prompt was flagged by our safety system", True),
        ("Invalid image: cannot be decoded", True),
        ("You exceeded your current quota", False),
        ("This model does not support image input", False),
        ("Billing is not active for this account", False),
        ("max_tokens is too large: 200. This model's maximum context length is 4096, you have 4000 input tokens", True),
        ("max_tokens is too large: 300. This model supports at most 128 completion tokens", False),
    ],
)
def test_a_refusal_is_of_the_row_or_of_the_server(message: str, of_row: bool) -> None:
    assert is_of_row(refusal(message)) is of_row


def test_requests_that_are_all_too_large_are_no_fault_of_the_rows() -> None:
    refusals, said = Refusals("the server"), refusal("This model's maximum context length is 16 tokens")
    for _ in range(MANY_TOO_LARGE - 1):
        refusals.refused(said)
    with pytest.raises(InputError, match=r"refuses every request: .*maximum context length is 16"):
        refusals.refused(said)
    refusals = Refusals("the server")
    refusals.answered()
    for _ in range(3 * MANY_TOO_LARGE):
        refusals.refused(said)


def test_the_words_of_other_servers_are_read() -> None:
    body = {"detail": [{"loc": ["body", "seed"], "msg": "Extra inputs are not permitted"}]}
    request = httpx2.Request("POST", "http://a.example/v1")
    error = openai.UnprocessableEntityError("422", response=httpx2.Response(422, request=request), body=body)
    assert words_of(error) == "body seed: Extra inputs are not permitted"
    assert Refusals("the server").leaves_out(error, {"seed": 0})
    response = httpx2.Response(429, request=request)
    without_code = {"message": "You exceeded your current quota, please check your plan"}
    assert cannot_pay(openai.RateLimitError("429", response=response, body=without_code))
    for passes in ("Rate limit reached", "You exceeded your current quota, see billing. Please retry in 33s"):
        assert not cannot_pay(openai.RateLimitError("429", response=response, body={"message": passes}))
    soon = httpx2.Response(429, request=request, headers={"retry-after": "3"})
    assert not cannot_pay(openai.RateLimitError("429", response=soon, body=without_code))


@pytest.mark.parametrize("faults", [{"500": 1.0}, {"malformed": 1.0}])
def test_a_server_that_answers_none_of_a_few_rows_settles_none(
    start: Start, monkeypatch: pytest.MonkeyPatch, faults: dict[str, float]
) -> None:
    monkeypatch.setattr("capsfusion_etl.engines.openai_client.RETRIES", 0)
    base_url, _ = start(faults=faults)
    with pytest.raises(RetryError, match="answered none of 2 questions"):
        ask(base_url, count=2)
    assert [s.judgement.verdict for s in ask(base_url, count=1)] == ["engine_error"]  # may be the row's fault


def test_rows_that_are_refused_for_their_text_never_stop_the_run() -> None:
    refusals = Refusals("the server")
    for _ in range(3 * MANY_IN_A_ROW):
        assert "flagged" in refusals.refused(refusal("Your prompt was flagged"))
    refusals.answered()
    for _ in range(MANY_IN_A_ROW - 1):
        refusals.refused(refusal("Something else"))
    with pytest.raises(InputError):
        refusals.refused(refusal("Something else"))


def test_a_server_that_does_not_tell_its_tokens_is_booked_at_the_most(start: Start) -> None:
    base_url, _ = start(usage=False)
    fuser = OpenAIFuser(FuserConfig(name="openai", model="m", base_url=base_url, usd_per_million_in=10.0))
    for settled in ask(base_url, count=5, usd_per_million_in=10.0):
        tokens, usd = fuser.most(settled.question)
        assert (settled.answer.prompt_tokens + settled.answer.completion_tokens, settled.answer.cost_usd) == (
            tokens,
            usd,
        )
