"""`openai`: any server with the OpenAI chat completions API, ChatGPT in the paper.

The SDK retries 429, 5xx, timeouts and lost connections, honouring Retry-After; what is left over costs one row. The key
comes from the environment or a file and goes nowhere else.
"""

import os
from pathlib import Path

import openai
from openai.types.chat import ChatCompletion

from capsfusion_etl.engines import Answer, FuserConfig, Question, prompt_name
from capsfusion_etl.errors import InputError, RetryError
from capsfusion_etl.prompt import load_template, render

RETRIES = 6  # of the transport, with the SDK's back-off and jitter: about a minute in all


class OpenAIFuser:
    """Chat completions, many in flight; fewer while the server says that it is too many."""

    revision = "served"

    def __init__(self, config: FuserConfig) -> None:
        if not config.model:
            raise InputError("fuser.model: say which model the server should run")
        self.model = config.model
        self.concurrency = config.concurrency
        self._config = config
        self._key = api_key(config.api_key_file)
        self._template = load_template(prompt_name(config))
        self._client: openai.AsyncOpenAI | None = None

    def _open(self) -> openai.AsyncOpenAI:
        if self._client is None:
            self._client = openai.AsyncOpenAI(
                api_key=self._key, base_url=self._config.base_url, timeout=self._config.timeout_s, max_retries=RETRIES
            )
        return self._client

    async def close(self) -> None:
        """Give the connections back: each Spark task has an event loop of its own, they cannot be shared."""
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    async def ask(self, question: Question) -> Answer:
        """One chat completion. An answer that is none (no choice, filtered, not JSON) costs this row.

        Raises:
            InputError: the key is refused, the model or the address is not there.
            RetryError: the server cannot be reached, also after the SDK's retries.
        """
        prompt = render(self._template, question.raw_caption, question.synthetic_caption)
        try:
            reply = await self._open().chat.completions.create(
                model=self.model,
                messages=[{"role": "user", "content": prompt}],
                max_completion_tokens=self._config.max_new_tokens,
                temperature=self._config.temperature if question.attempt else 0.0,
                seed=self._config.seed + question.attempt,
            )
        except (openai.AuthenticationError, openai.PermissionDeniedError):
            raise InputError(f"{self._where()} refuses the API key: set OPENAI_API_KEY or fuser.api_key_file") from None
        except openai.NotFoundError:
            raise InputError(f"{self._where()} has no model {self.model!r}, or no chat completions there") from None
        except openai.APITimeoutError:
            return Answer(None, error=f"no answer in {self._config.timeout_s:g} s")
        except openai.APIConnectionError:  # a dead server is no fault of the row: nothing must be settled by it
            raise RetryError(f"{self._where()} cannot be reached: run the same command again when it is back") from None
        except (openai.APIError, ValueError) as error:  # ValueError: a body that is not JSON
            return Answer(None, error=f"{type(error).__name__}: {str(error)[:150]}")
        return self._answer(reply)

    def _answer(self, reply: ChatCompletion) -> Answer:
        usage = getattr(reply, "usage", None)
        read, written = (usage.prompt_tokens, usage.completion_tokens) if usage else (0, 0)
        cost = (read * self._config.usd_per_million_in + written * self._config.usd_per_million_out) / 1e6
        choices = getattr(reply, "choices", None)
        text = choices[0].message.content if choices else None
        reason = choices[0].finish_reason if choices else "no choices"
        error = None if text and reason != "content_filter" else f"no answer: {reason}"
        return Answer(text.strip() if text and not error else None, error, read, written, cost)

    def _where(self) -> str:
        return self._config.base_url or "the OpenAI API"


def api_key(path: str | None) -> str:
    """The key from the file at `path`, else from OPENAI_API_KEY; servers of one's own often want none.

    Raises:
        InputError: the file cannot be read.
    """
    if path is None:
        return os.environ.get("OPENAI_API_KEY") or "none"
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except OSError as error:
        raise InputError(f"fuser.api_key_file: cannot read {path}: {error.strerror}") from None
