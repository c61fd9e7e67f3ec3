"""Engine `transformers`: any image-to-text model as a captioner, any causal language model as a fuser, in process.

With `fuser.sees_image` the fuser is a vision-language model that gets the image with the prompt, as in BLIP3-KALE and
Altogether.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from PIL import Image

from capsfusion_etl.engines.base import Answer, Picture, Question
from capsfusion_etl.engines.config import CaptionerConfig, EngineConfig, FuserConfig
from capsfusion_etl.engines.generation.generate import TextGenerator, by_length, read
from capsfusion_etl.engines.generation.guidance import guide_of, with_doubt
from capsfusion_etl.engines.generation.loading import device, dtype, load, quiet, use_task_cores
from capsfusion_etl.engines.generation.repeats import Repeats
from capsfusion_etl.engines.generation.weights import adapter_folder
from capsfusion_etl.engines.image import decode
from capsfusion_etl.engines.registry import prompt_name
from capsfusion_etl.prompts import load_template, render

CAPTIONER = "Salesforce/blip-image-captioning-large"  # the captioner of LAION-COCO
FUSER = "BAAI/CapsFus-LLaMA"  # the paper's refinement model


class TransformersFuser:
    """Fuser that runs a causal language model, with a LoRA adapter or from a GGUF file, or a vision-language model."""

    model: str
    revision: str

    def __init__(self, config: FuserConfig) -> None:
        self._config = config
        self._templates = {s: load_template(prompt_name(config, s)) for s in ("fused", "language-rewrite")}
        self._generator: TextGenerator | VisionGenerator = self._load(config)
        self._repeats = Repeats(self._varies)

    def _load(self, config: FuserConfig) -> "TextGenerator | VisionGenerator":
        self.model, self.revision = config.model or FUSER, config.revision or "main"
        if config.sees_image:
            return VisionGenerator(config, self.model)
        adapter = None if config.adapter in (None, "auto") else adapter_folder(str(config.adapter))
        if adapter is not None:
            self.revision += f"+{adapter.name}"
        return TextGenerator(config, self.model, adapter=adapter, chat=not config.bare, one_line=config.bare)

    def fuse(self, questions: Sequence[Question]) -> list[Answer]:
        """Return one answer for each question, in order."""
        answers: dict[int, Answer] = {}
        for strategy in sorted({q.strategy for q in questions}):
            indices = [i for i, q in enumerate(questions) if q.strategy == strategy]
            mine = [questions[i] for i in indices]
            answers.update(zip(indices, self._repeats.answered(mine, partial(self._fuse, strategy)), strict=True))
        return [answers[i] for i in range(len(questions))]

    def _fuse(self, strategy: str, questions: Sequence[Question]) -> list[Answer]:
        template = self._templates[strategy]
        prompts = [render(template, q.raw_caption, q.synthetic_caption, q.fused_caption) for q in questions]
        attempts = [q.attempt for q in questions]
        seeds = [self._config.seed + int(q.pair_id[:8], 16) + q.attempt for q in questions]
        if isinstance(self._generator, TextGenerator):
            prefix_of = (render(template, "a", "a", "a"), render(template, "7", "7", "7"))
            guides = [guide_of(q, self._config) for q in questions]
            answers = self._generator.answer(
                prompts,
                prefix_of=prefix_of,
                attempts=attempts,
                seeds=seeds,
                guides=guides,
                bonus=self._config.keep_facts or 0.0,
            )
            return [with_doubt(q, answer, self._config) for q, answer in zip(questions, answers, strict=True)]
        return self._generator.answer([q.image for q in questions], prompts, attempts=attempts, seeds=seeds)

    def _varies(self, attempt: int) -> bool:
        """Return whether the answers to equal questions differ: they are sampled, or the model sees their images."""
        generator, guided = self._generator, bool(self._config.only_sources)
        return isinstance(generator, VisionGenerator) or generator.samples(attempt, guided=guided)


class TransformersCaptioner:
    """Captioner that runs BLIP, or any vision-language model with a chat template."""

    def __init__(self, config: CaptionerConfig) -> None:
        self.model, self.revision = config.model or CAPTIONER, config.revision or "main"
        self._generator = VisionGenerator(config, self.model)
        self._prompt = config.instruction if self._generator.chats else ""

    def caption(self, pictures: Sequence[Picture]) -> list[Answer]:
        """Return one sentence for each image; an image that cannot be decoded gives an answer with an error."""
        zeros = [0] * len(pictures)
        return self._generator.answer(
            [p.image for p in pictures], [self._prompt] * len(pictures), attempts=zeros, seeds=zeros
        )


class VisionGenerator:
    """An image-to-text model that returns one answer for each image and prompt.

    Attributes:
        chats: whether the model has a chat template.

    Raises:
        InputError: the model cannot be loaded, or `dtype` is unknown or not supported here.
    """

    def __init__(self, config: EngineConfig, model: str) -> None:
        from transformers import AutoModelForImageTextToText, AutoProcessor

        quiet()
        use_task_cores()
        self._config = config
        where = {"pretrained_model_name_or_path": model, "revision": config.revision}
        self._processor = load(AutoProcessor, **where)
        self._tokenizer = self._processor.tokenizer
        self._tokenizer.padding_side = "left"
        self._model = load(AutoModelForImageTextToText, **where, dtype=dtype(config), **config.engine_args)
        self._model = self._model.eval().to(device())
        self.chats = getattr(self._processor, "chat_template", None) is not None

    def answer(
        self, images: Sequence[bytes | None], prompts: Sequence[str], *, attempts: Sequence[int], seeds: Sequence[int]
    ) -> list[Answer]:
        """Return one answer for each image, in order; an image that cannot be decoded gives an answer with an error.

        Args:
            images: encoded bytes of each image.
            prompts: text of each prompt; empty if the model takes none.
            attempts: for each row, 0 for greedy decoding or beams, more for sampling. A batch is sampled if any of its
                rows is.
            seeds: for each row, the seed of sampling; a batch uses that of its first row.
        """
        decoded = [decode(data) for data in images]
        good = [i for i, d in enumerate(decoded) if isinstance(d, Image.Image)]

        def batch(indices: list[int]) -> list[Answer]:
            rows = [good[i] for i in indices]
            sampled = max(attempts[i] for i in rows)
            return self._generate(
                [decoded[i] for i in rows], [prompts[i] for i in rows], seeds[rows[0]] if sampled else None
            )

        answered = by_length([len(prompts[i]) for i in good], self._config.batch_size, batch)
        by_row = dict(zip(good, answered, strict=True))
        return [by_row[i] if i in by_row else Answer(None, error=str(d)) for i, d in enumerate(decoded)]

    def _generate(self, images: list[Any], prompts: list[str], seed: int | None) -> list[Answer]:
        inputs = self._inputs(images, prompts).to(self._model.device, self._model.dtype)
        arguments: dict[str, Any] = {"do_sample": False, "num_beams": self._config.num_beams or 1}
        if seed is not None:
            torch.manual_seed(seed)
            arguments = {"do_sample": True, "temperature": getattr(self._config, "temperature", 0.7), "top_p": 0.9}
        with torch.inference_mode():
            out = self._model.generate(**inputs, max_new_tokens=self._config.max_new_tokens, **arguments)
        text = inputs.get("input_ids")
        read_tokens = inputs["attention_mask"].sum(dim=1).tolist() if text is not None else [0] * len(images)
        # A decoder repeats the prompt before its answer; BLIP without a prompt does not.
        start = text.shape[1] if text is not None else 0
        ends = self._model.generation_config.eos_token_id
        ends = ends if isinstance(ends, list) else [self._tokenizer.eos_token_id if ends is None else ends]
        return read(self._tokenizer, out[:, start:], read_tokens, ends)

    def _inputs(self, images: list[Any], prompts: list[str]) -> Any:
        if not self.chats:
            text = {"text": prompts, "padding": True} if any(prompts) else {}
            return self._processor(images=images, return_tensors="pt", **text)
        talks = [
            [{"role": "user", "content": [{"type": "image", "image": i}, {"type": "text", "text": p}]}]
            for i, p in zip(images, prompts, strict=True)
        ]
        return self._processor.apply_chat_template(
            talks, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt",
            processor_kwargs={"padding": True},
        )  # fmt: skip
