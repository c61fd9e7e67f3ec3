"""Text generation with the transformers library, for the engines `embedded` and `transformers`.

Rows of similar length share a batch. The prefix that all prompts have in common (the instructions) is computed once,
and each batch gets a copy of its keys and values.
"""

import copy
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch

from capsfusion_etl.engines.base import Answer
from capsfusion_etl.engines.config import EngineConfig
from capsfusion_etl.engines.generation.attention import share_keys
from capsfusion_etl.engines.generation.guidance import Guide
from capsfusion_etl.engines.generation.guide import SECOND_BEAMS, Processors, best_of, with_titles
from capsfusion_etl.engines.generation.int8 import quantise
from capsfusion_etl.engines.generation.loading import device, dtype, load, quiet, source, use_task_cores

T = TypeVar("T")


class TextGenerator:
    """A causal language model that returns one answer for each prompt.

    Args:
        config: batch_size, max_new_tokens, num_beams, dtype, engine_args, revision and temperature are used.
        model: name on the hub, folder, or GGUF file.
        adapter: folder of a LoRA adapter, which is merged into the weights.
        chat: whether to wrap prompts in the chat template of the model, if it has one.
        one_line: whether an answer ends at the first line break, for models that were not trained to stop.

    Raises:
        InputError: the model cannot be loaded, or `dtype` is unknown or not supported here.
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
        if device() == "cpu":
            share_keys(self._model)
        if config.dtype == "int8":
            self._model = quantise(self._model)
        if self._tokenizer.pad_token is None:
            self._tokenizer.pad_token = self._tokenizer.eos_token
        self._chat = chat and self._tokenizer.chat_template is not None
        self._stops = [self._tokenizer.eos_token_id]
        if one_line:
            self._stops += [self._tokenizer.encode(t, add_special_tokens=False)[0] for t in ("\n", "\n\n")]
        self._processors = Processors(self._tokenizer, self._stops)
        self._prefixes: dict[tuple[str, str], tuple[list[int], Any]] = {}

    def answer(
        self,
        prompts: Sequence[str],
        *,
        prefix_of: tuple[str, str],
        attempts: Sequence[int],
        seeds: Sequence[int],
        guides: Sequence[Guide],
        bonus: float = 0.0,
    ) -> list[Answer]:
        """Return one answer for each prompt, in order.

        Args:
            prompts: complete text of each prompt.
            prefix_of: two prompts from the same template with different captions; their common prefix is taken as the
                common prefix of `prompts`.
            attempts: for each prompt, 0 for greedy decoding or the configured beams; 1 for SECOND_BEAMS beams if its
                guide has words; else sampling (see `samples`). A batch follows the row with the most attempts.
            seeds: for each prompt, the seed of sampling; a batch uses that of its first row.
            guides: for each prompt, what steers its decoding: all have `words`, or none has.
            bonus: added to the logits of the tokens of missing facts; 0 turns this off.
        """
        tokens = [self._encode(prompt) for prompt in prompts]
        head, first = self._shared_prefix(prefix_of), self._config.num_beams or 1

        def batch(indices: list[int]) -> list[Answer]:
            attempt, guided = max(attempts[i] for i in indices), [guides[i] for i in indices]
            sampled = self.samples(attempt, guided=guided[0].words is not None)
            beams = first if not attempt else 1 if sampled else SECOND_BEAMS
            seed = seeds[indices[0]] if sampled else None
            return self._generate([tokens[i] for i in indices], head, seed, beams, guided, bonus)

        searches = any(attempts) and guides[0].words is not None
        widest = max(first, SECOND_BEAMS) if searches else first
        size = max(1, self._config.batch_size // widest)  # sequences, not rows, fill the caches
        return by_length([len(t) for t in tokens], size, batch)

    def samples(self, attempt: int, *, guided: bool) -> bool:
        """Return whether an attempt is sampled; if not, equal prompts get equal answers. `guided`: by `words`."""
        searched = attempt == 1 and guided and (self._config.num_beams or 1) < SECOND_BEAMS
        return attempt > 0 and not searched

    def _encode(self, prompt: str) -> list[int]:
        if self._chat:
            prompt = self._tokenizer.apply_chat_template(
                [{"role": "user", "content": prompt}], tokenize=False, add_generation_prompt=True
            )
        tokens: list[int] = self._tokenizer.encode(prompt, add_special_tokens=not self._chat)
        return tokens

    def _shared_prefix(self, prefix_of: tuple[str, str]) -> tuple[list[int], Any]:
        """Return the tokens that both prompts begin with, and their key-value cache.

        Returns ([], None) if there are none, or if the model's cache cannot be copied to a batch (sliding windows).
        """
        if prefix_of not in self._prefixes:
            first, second = (self._encode(prompt) for prompt in prefix_of)
            # Leave out the last common token: with another caption the tokenizer may merge it with what follows.
            count = next((i for i, (a, b) in enumerate(zip(first, second, strict=False)) if a != b), 0) - 1
            head, cache = first[: max(count, 0)], None
            if head:
                with torch.inference_mode():
                    cache = self._model(torch.tensor([head], device=self._model.device), use_cache=True).past_key_values
            reusable = cache is not None and hasattr(cache, "batch_repeat_interleave") and not any(cache.is_sliding)
            self._prefixes[prefix_of] = (head, cache) if reusable else ([], None)
        return self._prefixes[prefix_of]

    def _generate(
        self,
        tokens: list[list[int]],
        head: tuple[list[int], Any],
        seed: int | None,
        beams: int,
        guides: list[Guide],
        bonus: float,
    ) -> list[Answer]:
        start, cache = head
        arguments: dict[str, Any] = {}
        if cache is not None and all(t[: len(start)] == start and len(t) > len(start) for t in tokens):
            arguments["past_key_values"] = copy.deepcopy(cache)
            arguments["past_key_values"].batch_repeat_interleave(len(tokens))
        else:
            start = []
        # The padding goes between the common prefix and the rest; positions are computed from the mask.
        width = max(len(t) for t in tokens) - len(start)
        pads = [width - (len(t) - len(start)) for t in tokens]
        pad = self._tokenizer.pad_token_id
        rows = [start + [pad] * gap + t[len(start) :] for t, gap in zip(tokens, pads, strict=True)]
        masks = [[1] * len(start) + [0] * gap + [1] * (width - gap) for gap in pads]
        ids, mask = (torch.tensor(t, device=self._model.device) for t in (rows, masks))
        if beams > 1 and "past_key_values" in arguments:
            self._read_once(ids, mask, arguments["past_key_values"], beams)
        if seed is not None:
            torch.manual_seed(seed)
            arguments |= {"do_sample": True, "temperature": self._config.temperature, "top_p": 0.9}  # type: ignore[attr-defined]
        else:
            arguments |= {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}
        most = self._config.max_new_tokens
        choose = beams > 1 and guides[0].prefer is not None
        arguments["logits_processor"] = self._processors.of(guides, len(start) + width, beams, bonus)
        if choose:
            arguments |= {"num_return_sequences": beams, "return_dict_in_generate": True, "output_scores": True}
            arguments["early_stopping"] = True
        with torch.inference_mode():
            out = self._model.generate(
                input_ids=ids,
                attention_mask=mask,
                max_new_tokens=max(min(g.max_tokens or most, most) for g in guides),
                num_beams=beams,
                pad_token_id=pad,
                eos_token_id=self._stops,
                **arguments,
            )
        made = out.sequences if choose else out
        lengths = [len(t) for t in tokens for _ in range(beams if choose else 1)]
        answers = with_titles(read(self._tokenizer, made[:, len(start) + width :], lengths, self._stops), guides)
        return best_of(answers, out.sequences_scores.tolist(), guides) if choose else answers

    def _read_once(self, ids: torch.Tensor, mask: torch.Tensor, cache: Any, beams: int) -> None:
        """Extend `cache` by the rest of the prompts but their last token, then copy it to the beams of each row.

        transformers would copy the prompts first, and compute each of them once a beam.
        """
        positions = (mask.cumsum(dim=-1) - 1).clamp_min(0)
        known = cache.get_seq_length()
        with torch.inference_mode():
            self._model(
                ids[:, known:-1], attention_mask=mask[:, :-1], position_ids=positions[:, known:-1],
                past_key_values=cache, use_cache=True, logits_to_keep=1,
            )  # fmt: skip
        cache.batch_repeat_interleave(beams)


def read(tokenizer: Any, out: torch.Tensor, prompt_tokens: Sequence[int], stops: Sequence[int]) -> list[Answer]:
    """Decode generated tokens into answers.

    Args:
        tokenizer: of the model.
        out: generated tokens of shape (batch, length), without the prompt; padding follows the first end token.
        prompt_tokens: tokens of each prompt.
        stops: end tokens.
    """
    ends = torch.isin(out, torch.tensor(stops, device=out.device))
    written = torch.where(ends.any(dim=1), ends.int().argmax(dim=1) + 1, out.shape[1]).tolist()
    texts = tokenizer.batch_decode(out, skip_special_tokens=True)
    return [
        Answer(text.strip(), prompt_tokens=r, completion_tokens=w)
        for text, r, w in zip(texts, prompt_tokens, written, strict=True)
    ]


def by_length(lengths: Sequence[int], size: int, batch: Callable[[list[int]], list[T]]) -> list[T]:
    """Run `batch` on lists of up to `size` indices of similar length; return the results in the order of `lengths`."""
    order = sorted(range(len(lengths)), key=lambda i: lengths[i])
    results: dict[int, T] = {}
    for start in range(0, len(order), size):
        indices = order[start : start + size]
        results.update(zip(indices, batch(indices), strict=True))
    return [results[i] for i in range(len(lengths))]
