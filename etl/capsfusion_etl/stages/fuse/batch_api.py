"""Engine `openai-batch`: fusion through a batch API, at half the price and within a day.

Several batches are open at once. A token of our own identifies each one in its metadata and in the table `batches`,
and a journal holds its requests. So a run that resumes after a crash finds the batches it sent and pays for nothing
twice. Responses are matched by custom_id; requests without a response are sent again in another batch.
"""

import json
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import chain
from typing import Any

import openai
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from capsfusion_etl.budget import journal
from capsfusion_etl.budget.budget import Budget
from capsfusion_etl.budget.metered import Allowance
from capsfusion_etl.console import say
from capsfusion_etl.engines import Answer, FuserConfig, Question
from capsfusion_etl.engines.openai import OpenAIFuser
from capsfusion_etl.engines.openai_client import api_key
from capsfusion_etl.errors import InputError, RetryError
from capsfusion_etl.lake.run import Run
from capsfusion_etl.lake.slices import Work
from capsfusion_etl.stages.fuse.batch_replies import custom_id, error_of, refusal_of, unpaid

REQUESTS = 50_000  # most requests in a batch
BYTES = 150_000_000  # largest file of a batch
TOKEN = "capsfusion_token"
_ENDED = ("completed", "expired", "cancelled", "failed")
Body = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Batch:
    """A batch: our token, the id on the server, the folder of its journal, the tokens and dollars reserved for it."""

    token: str
    batch_id: str
    folder: str
    tokens: int
    usd: float


class BatchJob:
    """Fuses one strategy through batches.

    Args:
        due: the pairs without a caption, evaluated anew at each use.
        work: `fuse_batches` with an allowance that sends no requests: it settles the rows that the journals can settle.
        budget: what may be spent; the most that open batches can cost is reserved.
    """

    def __init__(
        self, run: Run, config: FuserConfig, strategy: str, due: DataFrame, work: Work, budget: Budget
    ) -> None:
        self._run, self._config, self._strategy, self._due, self._work, self._budget = (
            run, config, strategy, due, work, budget,
        )  # fmt: skip
        self._fuser = OpenAIFuser(config)
        self._client = openai.OpenAI(
            api_key=api_key(config.api_key_file, "fuser"), base_url=config.base_url, timeout=config.timeout_s
        )

    def run(self) -> int:
        """Send and collect batches until nothing is due; return the number of rows that were due.

        Raises:
            InputError: the server refuses the key, the model or a batch.
            RetryError: the server is unreachable, or a batch ended without any response.
            BudgetError: the budget is used up before all rows are settled.
        """
        total = self._due.count()
        try:
            with self._client:
                open_ = self._recover()
                while (batch := self._send() if len(open_) < self._config.concurrency else None) or open_:
                    open_ = [*open_, batch] if batch is not None else self._collect(open_)
        except (openai.AuthenticationError, openai.PermissionDeniedError):
            raise InputError("the server refuses the API key: set OPENAI_API_KEY or fuser.api_key_file") from None
        except openai.NotFoundError as error:
            raise InputError(f"the server has no batch API, or does not know this batch: {str(error)[:150]}") from None
        except openai.APIConnectionError:
            raise RetryError("the server cannot be reached: run the same command again when it is back") from None
        except openai.APIStatusError as error:
            raise RetryError(f"the server refused a request: {str(error)[:150]}") from None
        for folder in self._budget.folders():
            self._budget.forget(folder)
        return total

    def _recover(self) -> list[Batch]:
        """Return the batches that an earlier run left open; one without an id is found by its token."""
        rows = self._run.lake.read("batches").where(F.col("params_hash") == self._budget.params_hash)
        left = rows.where("state IN ('sending', 'open')").collect()
        on_server: dict[str, str] = {}
        if any(row["batch_id"] is None for row in left):
            on_server = {(b.metadata or {}).get(TOKEN, ""): b.id for b in self._client.batches.list(limit=100)}
        found = []
        for row in left:
            folder, batch_id = self._budget.folder_of(row["token"]), row["batch_id"] or on_server.get(row["token"])
            batch = Batch(row["token"], batch_id or "", folder, row["reserved_tokens"], row["reserved_usd"])
            if batch_id is None:  # it never reached the server
                self._note(batch, "failed", row["attempt"], row["rows"])
                self._budget.forget(folder)
                continue
            self._note(batch, "open", row["attempt"], row["rows"])
            self._budget.reserve(batch.tokens, batch.usd)
            found.append(batch)
        if found:
            say(f"fuse      {len(found)} batches of a run that was stopped go on")
        return found

    def _send(self) -> Batch | None:
        """Send the next batch; return None if nothing can be sent now.

        Raises:
            BudgetError: the budget allows no request, and no open batch may release a part of it.
        """
        asked = journal.read(self._budget.folders())
        questions = self._next(asked)
        first = next(questions, None)
        if first is None:
            return None
        token = uuid.uuid4().hex
        book = journal.Journal(self._budget.folder_of(token))
        lines: list[bytes] = []
        size, tokens, usd = 0, 0, 0.0
        for question in chain([first], questions):
            more = self._fuser.most(question)
            line = json.dumps(self._line(question)).encode() + b"\n"
            full = len(lines) >= REQUESTS or size + len(line) > BYTES
            if full or not self._budget.allows(tokens + more[0], usd + more[1], len(lines) + 1):
                break
            book.asked((question.pair_id, self._strategy, question.attempt), *more)
            lines.append(line)
            size, tokens, usd = size + len(line), tokens + more[0], usd + more[1]
        book.close()
        batch = Batch(token, "", self._budget.folder_of(token), tokens, usd)
        if not lines:
            self._budget.forget(batch.folder)
            if asked.lost:  # open batches will release what they do not use
                return None
            raise self._budget.used_up()
        self._note(batch, "sending", first.attempt, len(lines))
        upload = self._client.files.create(file=(f"{token}.jsonl", b"".join(lines)), purpose="batch")
        made = self._client.batches.create(
            input_file_id=upload.id, endpoint="/v1/chat/completions", completion_window="24h", metadata={TOKEN: token}
        )
        batch = Batch(token, made.id, batch.folder, tokens, usd)
        self._note(batch, "open", first.attempt, len(lines))
        self._budget.reserve(tokens, usd)
        say(f"fuse      batch {made.id}: {len(lines)} requests sent, ${usd:.4f} at most")
        return batch

    def _next(self, asked: journal.Replay) -> Iterator[Question]:
        """Yield the pairs that are due and in no open batch, with the number of their next attempt."""
        waiting = {pair_id for pair_id, _, _ in asked.lost}
        attempts: dict[str, int] = {}
        for pair_id, _, attempt in asked.answers:
            attempts[pair_id] = max(attempts.get(pair_id, 0), attempt + 1)
        for row in self._due.orderBy("pair_id").toLocalIterator():
            if row["pair_id"] not in waiting:
                yield Question(**row.asDict(), strategy=self._strategy, attempt=attempts.get(row["pair_id"], 0))

    def _line(self, question: Question) -> Body:
        body = self._fuser.request(question)
        return {"custom_id": custom_id(question), "method": "POST", "url": "/v1/chat/completions", "body": body}

    def _collect(self, open_: list[Batch]) -> list[Batch]:
        """Wait until a batch has ended, settle all that have, and return those still open."""
        while True:
            seen = [(batch, self._client.batches.retrieve(batch.batch_id)) for batch in open_]
            if any(state.status in _ENDED for _, state in seen):
                break
            time.sleep(self._config.poll_s)
        for batch, state in seen:
            if state.status in _ENDED:
                self._settle(batch, state)
        return [batch for batch, state in seen if state.status not in _ENDED]

    def _settle(self, batch: Batch, state: Any) -> None:
        asked = journal.read([batch.folder])
        sent = [*asked.lost, *asked.answers]  # includes answers if an earlier call of this method was killed
        keys = {custom_id(Question(k[0], "", "", attempt=k[2])): k for k in sent}
        entries = list(self._entries(state.output_file_id, state.error_file_id))
        if refusal := refusal_of(entries):
            self._give_up(batch, len(sent))
            raise InputError(
                f"the server answered no request of the batch {batch.batch_id}: {refusal}. No row is settled for that: "
                "run the same command again when the server works"
            )
        book, answered = journal.Journal(batch.folder), 0
        for entry in entries:
            if unpaid(entry):  # as if it had never been sent
                continue
            key = keys.pop(str(entry.get("custom_id")), None)
            if key is not None:
                book.answered(key, self._read(entry, asked.lost.get(key, (0, 0.0))))
                answered += 1
        for key in keys.values():  # requests without a response, in an expired or failed batch, are not charged
            book.refused(key)
        book.close()
        self._budget.release(batch.tokens, batch.usd)
        rows = self._run.lake.spark.createDataFrame([(k[0],) for k in sent], "pair_id string")
        allowance = Allowance(batch.folder, journals=tuple(self._budget.folders()), asks=False)
        part = self._due.join(rows, "pair_id", "left_semi")
        before = self._made()
        self._run.lake.append("fused_captions", self._work(part, allowance), app_id=f"batch/{batch.token}", version=0)
        self._budget.book(batch.token, self._made() - before)
        self._note(batch, "failed" if state.status == "failed" else "collected", 0, answered)
        say(f"fuse      batch {batch.batch_id} {state.status}: {answered} answers")
        if short := next((error_of(entry) for entry in entries if unpaid(entry)), None):
            raise InputError(
                f"the account cannot pay for the rest of the batch {batch.batch_id} ({short}): raise its quota and run "
                "the same command again"
            )
        if state.status == "failed":
            errors = getattr(state.errors, "data", None) or []
            raise InputError(f"the server refused the batch: {errors[0].message if errors else 'no reason given'}")
        if not answered:
            raise RetryError(f"batch {batch.batch_id} {state.status} without any response: run the same command again")

    def _made(self) -> int:
        return self._run.lake.live("fused_captions").where(F.col("params_hash") == self._budget.params_hash).count()

    def _entries(self, *files: str | None) -> Iterator[Body]:
        for file in files:
            if file:
                for line in self._client.files.content(file).iter_lines():
                    if line.strip():
                        yield json.loads(line)

    def _give_up(self, batch: Batch, rows: int) -> None:
        """Release what a batch without a single answer was to cost, so that its rows are due again."""
        self._budget.release(batch.tokens, batch.usd)
        self._budget.forget(batch.folder)
        self._note(batch, "failed", 0, rows)

    def _read(self, entry: Body, most: tuple[int, float]) -> Answer:
        reply = entry.get("response") or {}
        if reply.get("status_code") == 200:
            return self._fuser.read(reply.get("body") or {}, most)
        return Answer(None, error=f"the batch returned an error: {error_of(entry)}")

    def _note(self, batch: Batch, state: str, attempt: int, rows: int) -> None:
        row = (
            batch.token, batch.batch_id or None, self._budget.params_hash, attempt, rows, batch.tokens, batch.usd,
            state, datetime.now(UTC), self._run.run_id,
        )  # fmt: skip
        compare = ("token", "batch_id", "state")
        self._run.lake.settle_few("batches", [row], column="token", value=batch.token, compare=compare)
