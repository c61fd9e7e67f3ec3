"""Engine `vllm`: one vLLM engine per Python worker, kept across tasks; vLLM caches the common prefix of the prompts.

Set spark.task.resource.gpu.amount to 1, so that each GPU has one engine. `engine_args` are further arguments of vLLM's
`LLM`, such as gpu_memory_utilization, max_model_len or tensor_parallel_size.
"""

from collections.abc import Sequence
from typing import Any

from capsfusion_etl.engines.base import Answer, Picture, Question
from capsfusion_etl.engines.config import CaptionerConfig, EngineConfig, FuserConfig
from capsfusion_etl.engines.forms import OPINION, form_of
from capsfusion_etl.engines.generation.grammar import grammar_of
from capsfusion_etl.engines.generation.guidance import guide_of, with_doubt
from capsfusion_etl.engines.generation.weights import adapter_folder, merged
from capsfusion_etl.engines.image import data_url, message_content
from capsfusion_etl.engines.registry import prompt_name
from capsfusion_etl.engines.transformers import CAPTIONER, FUSER
from capsfusion_etl.errors import InputError
from capsfusion_etl.prompts import load_template, render


class Engine:
    """Wrapper of vLLM's `LLM`, which schedules batches of any size.

    Raises:
        InputError: vLLM cannot load the model.
    """

    def __init__(self, config: EngineConfig, model: str) -> None:
        from vllm import LLM

        self._config = config
        arguments = {"enable_prefix_caching": True, "dtype": config.dtype, "seed": config.seed} | config.engine_args
        try:
            self._llm = LLM(model=model, revision=config.revision, **arguments)
        except (OSError, ValueError) as error:
            raise InputError(f"vLLM cannot load the model {model}: {str(error).splitlines()[0][:200]}") from None
        self._chats = self._llm.get_tokenizer().chat_template is not None

    def answer(
        self,
        prompts: Sequence[str],
        images: Sequence[bytes | None] | None,
        *,
        attempts: Sequence[int],
        seeds: Sequence[int],
        chat: bool = True,
        one_line: bool = False,
        structures: Sequence[dict[str, Any] | None] | None = None,
    ) -> list[Answer]:
        """Return one answer for each prompt, in order; an image that cannot be opened gives an answer with an error.

        Args:
            prompts: complete text of each prompt.
            images: encoded bytes of the image that precedes each prompt; None: no images.
            attempts: for each prompt, 0 for greedy decoding, more for sampling.
            seeds: for each prompt, the seed of sampling.
            chat: whether to use the chat template of the model, if it has one.
            one_line: whether an answer ends at the first line break.
            structures: for each prompt, what its answer follows, as arguments of vLLM's StructuredOutputsParams; None:
                free text.

        Raises:
            InputError: images need a chat template, and the model has none or `chat` is false.
        """
        urls = [data_url(image) for image in images] if images is not None else [None] * len(prompts)
        good = [i for i in range(len(prompts)) if images is None or urls[i] is not None]
        structures = structures or [None] * len(prompts)
        sampling = [self._sampling(attempts[i], seeds[i], one_line, structures[i]) for i in good]
        if chat and self._chats:
            talks: Any = [[{"role": "user", "content": message_content(prompts[i], urls[i])}] for i in good]
            outputs = self._llm.chat(talks, sampling, use_tqdm=False)
        elif images is None:
            outputs = self._llm.generate([prompts[i] for i in good], sampling, use_tqdm=False)
        else:
            raise InputError("images need a chat template: choose a model that has one, with fuser.chat=true")
        answered = {i: self._read(output) for i, output in zip(good, outputs, strict=True)}
        return [answered.get(i) or Answer(None, error="no picture that can be decoded") for i in range(len(prompts))]

    def _sampling(self, attempt: int, seed: int, one_line: bool, structure: dict[str, Any] | None) -> Any:
        from vllm import SamplingParams
        from vllm.sampling_params import StructuredOutputsParams

        return SamplingParams(
            max_tokens=self._config.max_new_tokens,
            temperature=getattr(self._config, "temperature", 0.7) if attempt else 0.0,
            top_p=0.9 if attempt else 1.0,
            seed=seed if attempt else None,
            stop=["\n"] if one_line else None,
            structured_outputs=None if structure is None else StructuredOutputsParams(**structure),
        )

    def _read(self, output: Any) -> Answer:
        best = output.outputs[0]
        read, written = len(output.prompt_token_ids or ()), len(best.token_ids)
        return Answer(best.text.strip(), None, read, written, self._config.cost(read, written))


class VllmFuser:
    """Fuser that runs a model in vLLM; with `sees_image` the model gets the image, too."""

    def __init__(self, config: FuserConfig) -> None:
        self._config = config
        self._templates = {s: load_template(prompt_name(config, s)) for s in ("fused", "language-rewrite")}
        form = form_of(self._templates["fused"])
        self._opinion = {"json": form.schema} if form is OPINION and config.structured else None
        self.model, self.revision = config.model or FUSER, config.revision or "main"
        where = self.model
        if config.adapter not in (None, "auto"):
            adapter = adapter_folder(str(config.adapter))
            self.revision += f"+{adapter.name}"
            where = str(merged(where, config.revision, adapter))
        self._engine = Engine(config, where)

    def fuse(self, questions: Sequence[Question]) -> list[Answer]:
        """Return one answer for each question, in order."""
        answers = self._engine.answer(
            [
                render(self._templates[q.strategy], q.raw_caption, q.synthetic_caption, q.fused_caption)
                for q in questions
            ],
            [q.image for q in questions] if self._config.sees_image else None,
            attempts=[q.attempt for q in questions],
            seeds=[self._config.seed + int(q.pair_id[:8], 16) + q.attempt for q in questions],
            chat=not self._config.bare,
            one_line=self._config.bare,
            structures=[self._structure(q) for q in questions],
        )
        return [with_doubt(q, answer, self._config) for q, answer in zip(questions, answers, strict=True)]

    def _structure(self, question: Question) -> dict[str, Any] | None:
        """Return what the answer follows, as arguments of StructuredOutputsParams; None: free text."""
        if self._config.only_sources:
            return {"grammar": grammar_of(guide_of(question, self._config))}
        return self._opinion


class VllmCaptioner:
    """Captioner that runs any vision-language model that vLLM supports."""

    def __init__(self, config: CaptionerConfig) -> None:
        self.model, self.revision = config.model or CAPTIONER, config.revision or "main"
        self._prompt = config.instruction
        self._engine = Engine(config, self.model)

    def caption(self, pictures: Sequence[Picture]) -> list[Answer]:
        """Return one sentence for each image."""
        zeros = [0] * len(pictures)
        return self._engine.answer(
            [self._prompt] * len(pictures), [p.image for p in pictures], attempts=zeros, seeds=zeros
        )
