"""Engine `openai`: any server with the OpenAI chat completions API (the paper used ChatGPT).

`openai_client` sends the requests and retries them. A request that timed out is not sent again, because the server may
have charged for it; it is booked at the upper bound of its cost.
"""

from typing import Any

import openai

from capsfusion_etl.engines.base import Answer, Picture, Question
from capsfusion_etl.engines.config import CaptionerConfig, EngineConfig, FuserConfig
from capsfusion_etl.engines.forms import CAPTION, AnswerForm, form_of
from capsfusion_etl.engines.generation.grammar import grammar_of
from capsfusion_etl.engines.generation.guidance import guide_of, with_doubt
from capsfusion_etl.engines.image import data_url, message_content
from capsfusion_etl.engines.openai_client import OpenAIClient
from capsfusion_etl.engines.openai_refusals import Refusals, is_of_row
from capsfusion_etl.engines.registry import prompt_name
from capsfusion_etl.errors import InputError, RetryError
from capsfusion_etl.prompts import load_template, render

FAILURES = 20  # consecutive questions without a usable answer after which the server is at fault
OVERHEAD = 100  # most tokens of the chat format, the schema and the JSON around an answer
BRACES = 16  # of them in the answer


class OpenAIEngine:
    """Chat completions, many in flight; fewer while the server limits the rate."""

    revision = "served"

    def __init__(self, config: EngineConfig, section: str, form: AnswerForm = CAPTION) -> None:
        if not config.model:
            raise InputError(f"{section}.model: not set; name the model that the server should run")
        self.model = config.model
        self.concurrency = config.concurrency
        self._config = config
        self._client = OpenAIClient(config, section)
        self._form, self._structured = form, config.structured
        self._failures, self._refusals = 0, Refusals(self._client.where)
        self._answered = False
        self._refused: set[tuple[str, str | None]] = set()
        self._unanswered: dict[tuple[str, str | None], str | None] = {}  # question -> error: a retry counts once

    def finish(self) -> None:
        """See AsyncEngine."""
        if not self._answered and len(self._unanswered) > 1:
            *_, error = self._unanswered.values()
            if self._refused >= self._unanswered.keys():  # fewer than `Refusals` waits for: a task may have few rows
                raise self._refusals.of_everything(str(error).partition(": ")[2])
            raise RetryError(
                f"{self._client.where} answered none of {len(self._unanswered)} questions ({error}): run the same "
                "command again when the server works"
            )

    async def close(self) -> None:
        """See AsyncEngine."""
        await self._client.close()

    def bound(self, prompt: str, *, image: bool) -> tuple[int, float]:
        """Return the most tokens and US dollars of one request; a token of the prompt has at least one byte."""
        read = len(prompt.encode()) + OVERHEAD + (self._config.image_tokens if image else 0)
        written = self._config.max_new_tokens + BRACES
        return read + written, self._config.cost(read, written)

    def body(
        self, prompt: str, url: str | None, *, temperature: float, seed: int, grammar: str | None = None
    ) -> dict[str, Any]:
        """Return the body of a request for one chat completion.

        Args:
            prompt: text of the message.
            url: URL of the image that precedes it, if any.
            temperature: 0 for greedy decoding.
            seed: seed of sampling.
            grammar: what the answer follows, for vLLM's server; None: JSON, if the server has schemas.
        """
        structure: dict[str, Any] = {}
        if grammar is not None:
            structure = {"structured_outputs": {"grammar": grammar}}
        elif self._structured:
            structure = {"response_format": self._form.response_format}
        return {
            "model": self.model,
            "messages": [{"role": "user", "content": message_content(prompt, url)}],
            "max_completion_tokens": self._config.max_new_tokens + (BRACES if self._structured else 0),
            "temperature": temperature,
            "seed": seed,
        } | structure

    async def _chat(
        self, prompt: str, url: str | None, *, temperature: float, seed: int, grammar: str | None = None
    ) -> Answer:
        """Request one chat completion; an unusable response (no choice, filtered, cut-off JSON) fails this row only.

        Raises:
            InputError: see `OpenAIClient.send` and `Refusals.refused`.
            RetryError: see `OpenAIClient.send`; also if FAILURES responses in a row were unusable.
        """
        body = self.body(prompt, url, temperature=temperature, seed=seed, grammar=grammar)
        body = self._refusals.without(body)
        most, question = self.bound(prompt, image=url is not None), (prompt, url)
        try:
            reply = await self._client.send(body)
        except (openai.BadRequestError, openai.UnprocessableEntityError) as error:
            if self._refusals.leaves_out(error, body):
                return await self._chat(prompt, url, temperature=temperature, seed=seed, grammar=grammar)
            refused = Answer(None, error=self._refusals.refused(error))
            if is_of_row(error):
                return refused
            self._refused.add(question)
            return self._noted(refused, question)
        except openai.APITimeoutError:
            tokens, usd = most
            answer = Answer(None, f"no response within {self._config.timeout_s:g} s", tokens, 0, usd)
            return self._failed(answer, question)
        except openai.APIError as error:
            return self._failed(Answer(None, error=f"{type(error).__name__}: {str(error)[:150]}"), question)
        except ValueError as error:  # a body that is not JSON, which may have been paid for
            answer = Answer(None, f"the response is not JSON: {str(error)[:150]}", most[0], 0, most[1])
            return self._failed(answer, question)
        self._refusals.answered()
        answer = self.read(reply, most)
        if not isinstance(reply, dict) or not reply.get("choices"):  # a content filter is not the server's failure
            return self._failed(answer, question)
        self._failures, self._answered = 0, True
        return answer

    def _noted(self, answer: Answer, question: tuple[str, str | None]) -> Answer:
        """Note a question that the server did not answer, unless it answered another, and return `answer`."""
        if not self._answered:
            self._unanswered[question] = answer.error
        return answer

    def _failed(self, answer: Answer, question: tuple[str, str | None]) -> Answer:
        """Count consecutive failures and return `answer`.

        Raises:
            RetryError: FAILURES in a row, so the server is at fault and must not settle more rows as errors.
        """
        self._failures += 1
        self._noted(answer, question)
        if self._failures >= FAILURES:
            raise RetryError(
                f"{self._client.where} gave no usable answer to {FAILURES} questions in a row ({answer.error}): "
                "run the same command again when the server works"
            )
        return answer

    def read(self, reply: Any, most: tuple[int, float]) -> Answer:
        """Return the answer in the body of a chat completion.

        JSON may hold unpaired surrogates, which UTF-8 cannot encode; they become `?`.

        Args:
            reply: the parsed body.
            most: the most tokens and dollars that the request can have cost; they count if the server does not say.
        """
        try:
            return self._read(reply, most)
        except (AttributeError, TypeError, ValueError, LookupError):
            return Answer(None, "no answer: the response is not a chat completion", most[0], 0, most[1])

    def _read(self, reply: dict[str, Any], most: tuple[int, float]) -> Answer:
        usage = reply.get("usage") or {}
        read, written = (_count(usage.get(name)) for name in ("prompt_tokens", "completion_tokens"))
        if read and written:
            cost = self._config.cost(read, written)
        else:  # the server says nothing, or nothing that can be: a cap must hold with it, too
            (read, cost), written = most, 0
        choices = reply.get("choices") or []
        if not choices:
            return Answer(None, "no answer: the response has no choices", read, written, cost)
        text, reason = (choices[0].get("message") or {}).get("content"), choices[0].get("finish_reason")
        if not text or reason == "content_filter":
            return Answer(None, f"no answer: finish_reason {reason}", read, written, cost)
        text, error = self._form.read(text)
        return Answer(text and text.encode(errors="replace").decode(), error, read, written, cost)


def _count(value: Any) -> int:
    """Return a number of tokens; 0 if it is none."""
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0


class OpenAIFuser(OpenAIEngine):
    """Fuser behind the API; with `sees_image` the request contains the image, too."""

    def __init__(self, config: FuserConfig) -> None:
        self._templates = {s: load_template(prompt_name(config, s)) for s in ("fused", "language-rewrite")}
        form = form_of(self._templates["fused"])
        super().__init__(config, "fuser" if form is CAPTION else "judge.second_opinion", form)
        self._settings = config

    def prompt(self, question: Question) -> str:
        """Return the prompt for `question`."""
        template = self._templates[question.strategy]
        return render(template, question.raw_caption, question.synthetic_caption, question.fused_caption)

    def request(self, question: Question) -> dict[str, Any]:
        """Return the body of the request for `question`; `openai-batch` puts it into a file."""
        return self.body(self.prompt(question), self._url(question), **self._decoding(question))

    async def ask(self, question: Question) -> Answer:
        """See AsyncEngine."""
        url = self._url(question)
        if self._settings.sees_image and url is None:
            return Answer(None, error="no picture that can be decoded")
        answer = await self._chat(self.prompt(question), url, **self._decoding(question))
        return with_doubt(question, answer, self._settings)

    def _url(self, question: Question) -> str | None:
        return data_url(question.image) if self._settings.sees_image else None

    def _decoding(self, question: Question) -> dict[str, Any]:
        """Return temperature, seed and grammar: greedy at first; later attempts sample with different seeds."""
        temperature = self._settings.temperature if question.attempt else 0.0
        grammar = grammar_of(guide_of(question, self._settings)) if self._settings.only_sources else None
        return {"temperature": temperature, "seed": self._config.seed + question.attempt, "grammar": grammar}

    def most(self, question: Question) -> tuple[int, float]:
        """See AsyncEngine."""
        return self.bound(self.prompt(question), image=self._settings.sees_image)


class OpenAICaptioner(OpenAIEngine):
    """Captioner that uses any vision model behind the API."""

    def __init__(self, config: CaptionerConfig) -> None:
        super().__init__(config, "captioner")
        self._prompt = config.instruction

    async def ask(self, question: Picture) -> Answer:
        """See AsyncEngine."""
        url = data_url(question.image)
        if url is None:
            return Answer(None, error="no picture that can be decoded")
        return await self._chat(self._prompt, url, temperature=0.0, seed=self._config.seed)

    def most(self, question: Picture) -> tuple[int, float]:
        """See AsyncEngine."""
        return self.bound(self._prompt, image=True)
