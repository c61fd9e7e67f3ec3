"""Text generation with transformers: what the engines `embedded` and `transformers` share.

Rows of like length go together, and what every prompt starts with (the instructions) is computed once: its keys and
values are lent to each batch.
"""

import copy
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch

from capsfusion_etl.engines.base import Answer
from capsfusion_etl.engines.config import EngineConfig
from capsfusion_etl.engines.generation.int8 import quantise, supported
from capsfusion_etl.errors import InputError

T = TypeVar("T")


class TextGenerator:
    """A causal language model: prompts in, one answer each. A model with a chat template is talked to through it.

    Args:
        config: batch_size, max_new_tokens, num_beams, dtype, engine_args, seed.
        model: hub name, folder, or GGUF file.
        adapter: folder of a LoRA adapter, merged into the weights.
        one_line: an answer ends at the first line break (for models that were never taught to stop).
    """

    def __init__(
        self, config: EngineConfig, model: str, *, adapter: Path | None, chat: bool = True, one_line: bool = False
    ) -> None:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        quiet()
        use_task_cores()
        self._config = config
        where = source(model, config.revision)
        self._tokenizer = load(AutoTokenizer, **where, padding_side="left")
        self._model = load(AutoModelForCausalLM, **where, dtype=dtype(config), **config.engine_args)
        if adapter is not None:
            from peft import PeftModel

            self._model = PeftModel.from_pretrained(self._model, str(adapter)).merge_and_unload()
        self._model = self._model.eval().to(device())
        if config.dtype == "int8":
            self._model = quantise(self._model)
        if self._tokenizer.pad_token is None:
            self._tokenizer.pad_token = self._tokenizer.eos_token
        self._chat = chat and self._tokenizer.chat_template is not None
        self._stops = [self._tokenizer.eos_token_id]
        if one_line:
            self._stops += [self._tokenizer.encode(t, add_special_tokens=False)[0] for t in ("\n", "\n\n")]
        self._prefixes: dict[tuple[str, str], tuple[list[int], Any]] = {}

    def answer(
        self,
        prompts: Sequence[str],
        *,
        prefix_of: tuple[str, str],
        attempts: Sequence[int],
        seeds: Sequence[int],
        facts: Sequence[Sequence[str]] | None = None,
        bonus: float = 0.0,
    ) -> list[Answer]:
        """One answer for each prompt, in order.

        Args:
            prompts: the whole text of each.
            same: two prompts with other captions in them: what they start with in common, all of `prompts` start with.
            attempts: 0 is answered greedily (or by beams), others by sampling.
            seeds: for the sampling.
            facts: words that each answer should say; their tokens get `bonus` (see `coverage`).
        """
        tokens = [self._encode(prompt) for prompt in prompts]
        head = self._shared_prefix(prefix_of)

        def batch(indices: list[int]) -> list[Answer]:
            sampled = max(attempts[i] for i in indices)
            keep = [facts[i] for i in indices] if facts is not None and bonus else None
            seed = seeds[indices[0]] if sampled else None
            return self._generate([tokens[i] for i in indices], head, seed, keep, bonus)

        return by_length([len(t) for t in tokens], self._config.batch_size, batch)

    def _encode(self, prompt: str) -> list[int]:
        if self._chat:
            prompt = self._tokenizer.apply_chat_template(
                [{"role": "user", "content": prompt}], tokenize=False, add_generation_prompt=True
            )
        tokens: list[int] = self._tokenizer.encode(prompt, add_special_tokens=not self._chat)
        return tokens

    def _shared_prefix(self, prefix_of: tuple[str, str]) -> tuple[list[int], Any]:
        """Tokens that both prompts start with, and their keys and values; none where the model cannot lend them."""
        if prefix_of not in self._prefixes:
            first, second = (self._encode(prompt) for prompt in prefix_of)
            # The last common token may merge with what follows it in another prompt.
            count = next((i for i, (a, b) in enumerate(zip(first, second, strict=False)) if a != b), 0) - 1
            head, cache = first[: max(count, 0)], None
            if head:
                with torch.inference_mode():
                    cache = self._model(torch.tensor([head], device=self._model.device), use_cache=True).past_key_values
            reusable = cache is not None and hasattr(cache, "batch_repeat_interleave") and not any(cache.is_sliding)
            self._prefixes[prefix_of] = (head, cache) if reusable else ([], None)
        return self._prefixes[prefix_of]

    def _keeping(self, facts: list[Sequence[str]], start: int, bonus: float) -> Any:
        from capsfusion_etl.engines.generation.coverage import KeepFacts

        encode = self._tokenizer.encode
        tokens = [[tuple(encode(f" {fact}", add_special_tokens=False)) for fact in row] for row in facts]
        ends = [*self._stops, encode(".", add_special_tokens=False)[-1]]
        return KeepFacts(tokens, start, bonus, ends)

    def _generate(
        self,
        tokens: list[list[int]],
        head: tuple[list[int], Any],
        seed: int | None,
        facts: list[Sequence[str]] | None,
        bonus: float,
    ) -> list[Answer]:
        start, cache = head
        arguments: dict[str, Any] = {}
        beams = self._config.num_beams if seed is None else 1
        if cache is not None and beams == 1 and all(t[: len(start)] == start and len(t) > len(start) for t in tokens):
            arguments["past_key_values"] = copy.deepcopy(cache)
            arguments["past_key_values"].batch_repeat_interleave(len(tokens))
        else:
            start = []
        # The padding goes between the common head and the rest: positions follow from the mask.
        width = max(len(t) for t in tokens) - len(start)
        pads = [width - (len(t) - len(start)) for t in tokens]
        pad = self._tokenizer.pad_token_id
        rows = [start + [pad] * gap + t[len(start) :] for t, gap in zip(tokens, pads, strict=True)]
        masks = [[1] * len(start) + [0] * gap + [1] * (width - gap) for gap in pads]
        if seed is not None:
            torch.manual_seed(seed)
            arguments |= {"do_sample": True, "temperature": self._config.temperature, "top_p": 0.9}  # type: ignore[attr-defined]
        else:
            arguments |= {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}
        if facts is not None and beams == 1:
            arguments["logits_processor"] = [self._keeping(facts, len(start) + width, bonus)]
        with torch.inference_mode():
            out = self._model.generate(
                input_ids=torch.tensor(rows, device=self._model.device),
                attention_mask=torch.tensor(masks, device=self._model.device),
                max_new_tokens=self._config.max_new_tokens,
                num_beams=beams,
                pad_token_id=pad,
                eos_token_id=self._stops,
                **arguments,
            )
        return read(self._tokenizer, out[:, len(start) + width :], [len(t) for t in tokens], self._stops)


def read(tokenizer: Any, out: torch.Tensor, prompt_tokens: Sequence[int], stops: Sequence[int]) -> list[Answer]:
    """Generated tokens (batch, length) to answers; what follows the first end token is padding."""
    ends = torch.isin(out, torch.tensor(stops, device=out.device))
    written = torch.where(ends.any(dim=1), ends.int().argmax(dim=1) + 1, out.shape[1]).tolist()
    texts = tokenizer.batch_decode(out, skip_special_tokens=True)
    return [
        Answer(text.strip(), prompt_tokens=r, completion_tokens=w)
        for text, r, w in zip(texts, prompt_tokens, written, strict=True)
    ]


def by_length(lengths: Sequence[int], size: int, batch: Callable[[list[int]], list[T]]) -> list[T]:
    """Run `batch` on lists of indices of like length; the results in the order of `lengths`."""
    order = sorted(range(len(lengths)), key=lambda i: lengths[i])
    results: dict[int, T] = {}
    for start in range(0, len(order), size):
        indices = order[start : start + size]
        results.update(zip(indices, batch(indices), strict=True))
    return [results[i] for i in range(len(lengths))]


def load(kind: Any, **arguments: Any) -> Any:
    """`kind.from_pretrained(...)`.

    Raises:
        InputError: there is no such model, or it is none that `kind` can load.
    """
    where = arguments.pop("pretrained_model_name_or_path")
    try:
        return kind.from_pretrained(where, **arguments)
    except (OSError, ValueError, KeyError) as error:
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise InputError(f"cannot load the model {where}: {reason[:200]}") from None


def source(model: str, revision: str | None) -> dict[str, Any]:
    """Where from_pretrained finds `model`: a GGUF file is named beside its folder."""
    if model.endswith(".gguf"):
        return {"pretrained_model_name_or_path": str(Path(model).parent), "gguf_file": Path(model).name}
    return {"pretrained_model_name_or_path": model, "revision": revision}


def device() -> str:
    """The accelerator of this process, else the CPU."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def dtype(config: EngineConfig) -> torch.dtype:
    """bfloat16 where it is fast, else float32: a CPU without bf16 instructions is many times slower in it.

    Raises:
        InputError: torch has no such type.
    """
    if config.dtype == "int8":
        if device() != "cpu" or not supported():
            raise InputError("dtype: int8 is for CPUs, and this torch has none of it here: use auto")
        return torch.float32
    if config.dtype == "auto":
        return torch.bfloat16 if device() == "cuda" else torch.float32
    chosen = getattr(torch, config.dtype, None)
    if not isinstance(chosen, torch.dtype) or not chosen.is_floating_point:
        raise InputError(
            f"dtype: {config.dtype!r} is none of torch's; auto, float32, bfloat16, float16 and int8 are usual"
        )
    return chosen


def quiet() -> None:
    """Loading a model is not worth a progress bar in an executor's log."""
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()


def use_task_cores() -> None:
    """As many threads as the task has cores (spark.task.cpus): tasks run side by side, and must not fight."""
    from pyspark import TaskContext

    task = TaskContext.get()
    if task is not None:
        torch.set_num_threads(max(1, int(task.cpus())))
