"""Logits processor that lets an answer consist of given words only, so that it cannot invent one.

The words of each row form a trie of tokens. The state of a sequence is a node of its row's trie; masks and transitions
are tensors, so that a step costs a few operations for the whole batch and its beams, and no Python loop over rows.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from transformers import LogitsProcessor

# What may follow a word, where it is a single token; only after a full stop may the answer end.
_PUNCTUATION = (",", ".", ":", "'s")


class OnlyWords(LogitsProcessor):
    """Masks all tokens that do not continue one of a row's words; it keeps state, so each batch needs a new one.

    Args:
        words: for each row, the words or phrases that its answer may consist of, as token sequences that begin with a
            space.
        encode: returns the tokens of a text.
        start: position at which the answers begin.
        ends: tokens that end an answer.
        size: size of the vocabulary.
        device: where the logits are.
    """

    def __init__(
        self,
        words: Sequence[Iterable[tuple[int, ...]]],
        encode: Callable[[str], Sequence[int]],
        start: int,
        ends: Sequence[int],
        size: int,
        device: Any = "cpu",
    ) -> None:
        self._start, self._ends = start, torch.tensor(list(ends), device=device)
        self._rows = len(words)
        marks = [tokens[0] for tokens in map(encode, _PUNCTUATION) if len(tokens) == 1]
        self._marks, self._stop = torch.tensor(marks, device=device), encode(".")[0]
        self._possessive = encode("'s")[0] if len(encode("'s")) == 1 else -1
        # Nodes 0 and 1 of the batch: between two words (after a comma), and after a full stop.
        children: list[dict[int, int]] = [{}, {}]
        whole = [False, False]
        self._first = torch.ones((self._rows, size), dtype=torch.int32, device=device)  # 1: no word begins so
        for row, tries in enumerate(words):
            firsts: dict[int, int] = {}
            for word in tries:
                here = firsts
                for token in word:
                    if token not in here:
                        here[token] = len(children)
                        children.append({})
                        whole.append(False)
                    node = here[token]
                    here = children[node]
                whole[node] = True
            index = torch.tensor(list(firsts), device=device)
            self._first[row, index] = torch.tensor(list(firsts.values()), dtype=torch.int32, device=device)
        self._begins = self._first > 1
        self._whole = torch.tensor(whole, device=device)
        self._next, self._to, self._kin = _table(children, size, device)
        self._said = torch.zeros((0, 0), dtype=torch.long)
        self._nodes = torch.zeros(0, dtype=torch.long)

    def __call__(self, input_ids: Any, scores: Any) -> torch.Tensor:
        """Return `scores`, logits of shape (rows x beams, vocabulary), with -inf for tokens that are not allowed."""
        nodes = self._advance(input_ids[:, self._start :])
        row = torch.arange(len(nodes), device=scores.device) // (len(nodes) // self._rows)
        between = self._whole[nodes] | (nodes < 2)
        allowed = torch.zeros((len(nodes), scores.shape[1] + 1), dtype=torch.bool, device=scores.device)
        allowed.scatter_(1, self._next[self._kin[nodes]], True)
        allowed = allowed[:, :-1]
        allowed[:, : self._begins.shape[1]] |= self._begins[row] & between[:, None]
        allowed[:, self._marks] |= self._whole[nodes][:, None]
        allowed[:, self._ends] = (nodes == 1)[:, None]
        return torch.as_tensor(scores.masked_fill(~allowed, float("-inf")))

    def _advance(self, said: torch.Tensor) -> torch.Tensor:
        """Return the node of each sequence; beams may have changed places since the last step."""
        count, length = said.shape
        if length == 0:
            nodes = torch.zeros(count, dtype=torch.long, device=said.device)
        else:
            beams = count // self._rows
            now, before = said[:, :-1].view(self._rows, beams, -1), self._said.view(self._rows, beams, -1)
            parent = (now[:, :, None] == before[:, None]).all(dim=-1).int().argmax(dim=-1)
            offset = torch.arange(self._rows, device=said.device)[:, None] * beams
            nodes = self._step(self._nodes[(parent + offset).flatten()], said[:, -1])
        self._said, self._nodes = said.clone(), nodes
        return nodes

    def _step(self, nodes: torch.Tensor, token: torch.Tensor) -> torch.Tensor:
        row = torch.arange(len(nodes), device=nodes.device) // (len(nodes) // self._rows)
        kin = self._kin[nodes]
        hit = self._next[kin] == token[:, None]
        inside = torch.where(hit, self._to[kin], 0).amax(dim=1)  # a child, or 0
        known = token < self._first.shape[1]
        begun = torch.where(known, self._first[row, torch.where(known, token, 0)].long(), 1)
        mark = torch.isin(token, self._marks) & self._whole[nodes]
        ended = token == self._stop
        after = torch.where(ended, 1, torch.where(token == self._possessive, nodes, 0))
        return torch.where(inside > 0, inside, torch.where(mark, after, begun))


def _table(children: list[dict[int, int]], pad: int, device: Any) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return tokens and targets of the nodes that have children, padded, and each node's line in them (0: none)."""
    inner = [node for node, kids in enumerate(children) if kids]
    width = max((len(children[node]) for node in inner), default=1)
    tokens = torch.full((len(inner) + 1, width), pad, dtype=torch.long)
    targets = torch.zeros((len(inner) + 1, width), dtype=torch.long)
    line = torch.zeros(len(children), dtype=torch.long)
    for i, node in enumerate(inner, start=1):
        kids = children[node]
        tokens[i, : len(kids)] = torch.tensor(list(kids))
        targets[i, : len(kids)] = torch.tensor(list(kids.values()))
        line[node] = i
    return tokens.to(device), targets.to(device), line.to(device)
