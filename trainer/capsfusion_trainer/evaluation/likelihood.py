"""How likely a model finds continuations of a prompt about an image, and texts without one."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from capsfusion_trainer.data.batch import PADDING
from capsfusion_trainer.model.caption_model import CaptionModel

_ROWS = 64  # continuations at once


@dataclass(frozen=True, slots=True)
class Asked:
    """A prompt, and the continuations to compare."""

    prompt: str
    continuations: tuple[str, ...]


@torch.inference_mode()
def mean_log_likelihoods(model: CaptionModel, images: Tensor, asked: Sequence[Asked]) -> list[list[float]]:
    """Return the mean log-likelihood per token of each continuation, given its image and prompt.

    Args:
        model: The model; the tower looks at each image once.
        images: (B, 3, S, S) uint8.
        asked: One for each image.
    """
    rows = [(image, *split_tokens(model, a.prompt, c)) for image, a in enumerate(asked) for c in a.continuations]
    with model.precision():
        prefixes = model.prefix(images.to(model.device))
        found = [mean for at in range(0, len(rows), _ROWS) for mean in _means(model, prefixes, rows[at : at + _ROWS])]
    means = iter(found)
    return [[next(means) for _ in a.continuations] for a in asked]


def _means(model: CaptionModel, prefixes: Tensor, rows: Sequence[tuple[int, list[int], int]]) -> list[float]:
    """Return a mean for each (image, tokens of prompt and continuation, number of tokens of the prompt)."""
    longest = max(len(ids) for _, ids, _ in rows)
    tokens = torch.tensor([ids + [PADDING] * (longest - len(ids)) for _, ids, _ in rows], device=model.device)
    places = torch.arange(longest, device=model.device)
    counts = (tokens != PADDING) & (places >= torch.tensor([[start] for *_, start in rows], device=model.device))
    logits = model.logits(prefixes[[image for image, *_ in rows]], tokens).float()
    chosen = logits.log_softmax(dim=-1).gather(2, tokens.clamp(min=0)[..., None])[..., 0]
    means: list[float] = ((chosen * counts).sum(dim=1) / counts.sum(dim=1)).tolist()
    return means


def split_tokens(model: CaptionModel, prompt: str, continuation: str) -> tuple[list[int], int]:
    """Return the tokens of a prompt with its continuation, and at which of them the continuation begins.

    The two are tokenized together: alone, a continuation may begin with a token that never follows a prompt.
    """
    between = "" if prompt[-1:].isspace() or not prompt else " "
    whole, head = ids_of(model, f"{prompt}{between}{continuation}"), ids_of(model, prompt)
    start = next((i for i, (a, b) in enumerate(zip(whole, head, strict=False)) if a != b), len(head))
    return whole, min(start, len(whole) - 1)


@torch.inference_mode()
def text_loss(model: CaptionModel, text: str) -> tuple[float, float]:
    """Return the mean loss per token of a text without an image, in nats, and the number of tokens that it counts.

    The first token counts only if the tokenizer has a BOS token to put before it; a text longer than the language model
    is cut.
    """
    bos = model.tokenizer.bos_token_id
    ids = [*([bos] if bos is not None else []), *ids_of(model, text)]
    room = getattr(model.llm.config, "max_position_embeddings", None)
    tokens = torch.tensor([ids[:room]], device=model.device)
    if tokens.shape[1] < 2:
        return 0.0, 0.0
    with model.precision():
        logits = model.llm(input_ids=tokens, use_cache=False).logits[0, :-1].float()
    loss = torch.nn.functional.cross_entropy(logits, tokens[0, 1:])
    return float(loss), float(tokens.shape[1] - 1)


def ids_of(model: CaptionModel, text: str) -> list[int]:
    """Return the tokens of a text, without BOS and EOS."""
    ids: list[int] = model.tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids
