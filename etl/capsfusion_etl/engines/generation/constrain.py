"""Logits processor that lets an answer consist of given words only, so that it cannot invent one.

The words of each row form a trie of tokens. The state of a sequence is a node of its row's trie; masks and transitions
are tensors, so that a step costs a few operations for the whole batch and its beams, and no Python loop over rows.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from transformers import LogitsProcessor

# What may follow a word, where it is a single token; only after a full stop may the answer end.
_MARKS = (",", ".", ":", "'s")
# Nodes after a comma or colon, after a full stop, after 's, and after the full stop that follows a last word.
_BETWEEN, _STOPPED, _POSSESSIVE, _CLOSED = 0, 1, 2, 3


class OnlyWords(LogitsProcessor):
    """Masks all tokens that do not continue one of a row's words; it keeps state, so each batch needs a new one.

    Args:
        words: for each row, the words or phrases that its answer may consist of, as token sequences that begin with a
            space.
        encode: returns the tokens of a text.
        start: position at which the answers begin.
        ends: tokens that end an answer.
        last: for each row, the one of its words after which the answer must end, or None. The full stop after it has
            likelihood 1, because the text between them is not decoded (see `guide`). It needs a full stop that is a
            single token.
    """

    def __init__(
        self,
        words: Sequence[Iterable[tuple[int, ...]]],
        encode: Callable[[str], Sequence[int]],
        start: int,
        ends: Sequence[int],
        last: Sequence[tuple[int, ...] | None] = (),
    ) -> None:
        self._start, self._ends = start, list(ends)
        marks = {mark: tokens[0] for mark in _MARKS if len(tokens := encode(mark)) == 1}
        self._marks, self._stop, self._s = list(marks.values()), marks.get(".", -1), marks.get("'s", -1)
        self._trie = _Trie()
        self._roots = [self._trie.add(row) for row in words]
        ends_at = [self._trie.find(root, word) for root, word in zip(self._roots, last, strict=False) if word]
        self._last = torch.tensor(ends_at if self._stop >= 0 else [], dtype=torch.long)  # their nodes
        self._tables: _Tables | None = None
        self._said = torch.zeros((0, 0), dtype=torch.long)  # tokens of the answers at the last step
        self._nodes = torch.zeros(0, dtype=torch.long)  # and the node that each of them has reached

    def __call__(self, input_ids: Any, scores: Any) -> torch.Tensor:
        """Return `scores`, logits of shape (rows x beams, vocabulary), with -inf for tokens that are not allowed."""
        if self._tables is None:
            self._tables = _Tables(self._trie, self._roots, scores.shape[1], scores.device)
            self._last = self._last.to(scores.device)
        tables, nodes = self._tables, self._advance(input_ids[:, self._start :])
        whole = tables.whole[nodes]
        allowed = torch.zeros((len(nodes), scores.shape[1] + 1), dtype=torch.bool, device=scores.device)
        allowed.scatter_(1, tables.tokens[tables.line[nodes]], True)
        allowed = allowed[:, :-1]
        allowed |= tables.begins[self._rows(nodes)] & (whole | (nodes <= _POSSESSIVE))[:, None]
        allowed[:, self._marks] |= (whole | (nodes == _POSSESSIVE))[:, None]
        if self._s >= 0:
            allowed[:, self._s] &= nodes != _POSSESSIVE
        allowed[:, self._ends] = ((nodes == _STOPPED) | (nodes == _CLOSED))[:, None]
        scores = scores.masked_fill(~allowed, float("-inf"))
        closing = torch.isin(nodes, self._last)
        scores[closing] = float("-inf")
        scores[closing, self._stop] = 0.0
        return torch.as_tensor(scores)

    def _rows(self, nodes: torch.Tensor) -> torch.Tensor:
        return torch.arange(len(nodes), device=nodes.device) // (len(nodes) // len(self._roots))

    def _advance(self, said: torch.Tensor) -> torch.Tensor:
        """Return the node of each sequence; beams may have changed places since the last step."""
        count, length = said.shape
        if length == 0:
            nodes = torch.full((count,), _BETWEEN, dtype=torch.long, device=said.device)
        else:
            rows = len(self._roots)
            now, before = said[:, :-1].view(rows, count // rows, -1), self._said.view(rows, count // rows, -1)
            parent = (now[:, :, None] == before[:, None]).all(dim=-1).int().argmax(dim=-1)
            first_of_row = torch.arange(rows, device=said.device)[:, None] * (count // rows)
            nodes = self._step(self._nodes[(parent + first_of_row).flatten()], said[:, -1])
        self._said, self._nodes = said.clone(), nodes
        return nodes

    def _step(self, nodes: torch.Tensor, token: torch.Tensor) -> torch.Tensor:
        tables = self._tables
        assert tables is not None
        line = tables.line[nodes]
        inside = torch.where(tables.tokens[line] == token[:, None], tables.targets[line], 0).amax(
            dim=1
        )  # a child, or 0
        begun = tables.first[self._rows(nodes), token].long()
        mark = torch.isin(token, torch.tensor(self._marks, device=token.device))
        after = torch.where(token == self._s, _POSSESSIVE, _BETWEEN)
        after = torch.where(token == self._stop, _STOPPED, after)
        after = torch.where(torch.isin(nodes, self._last), _CLOSED, after)
        after = torch.where(mark & (tables.whole[nodes] | (nodes == _POSSESSIVE)), after, begun)
        return torch.where(inside > 0, inside, after)


class _Trie:
    """Tries of tokens, one for each row, over one list of nodes; the first nodes stand for what follows a mark."""

    def __init__(self) -> None:
        self.children: list[dict[int, int]] = [{}, {}, {}, {}]
        self.whole = [False, False, False, False]  # whether a node ends a word

    def add(self, words: Iterable[tuple[int, ...]]) -> dict[int, int]:
        """Add the words of a row; return the nodes of their first tokens."""
        firsts: dict[int, int] = {}
        size = len(self.children)
        for word in words:
            here = firsts
            for token in word:
                if token not in here:
                    here[token] = len(self.children)
                    self.children.append({})
                    self.whole.append(False)
                node = here[token]
                here = self.children[node]
            self.whole[node] = True
        # After "in", the token of a space may go on with the phrase "in 3" or begin the next word, 2004: allow both.
        for node in range(size, len(self.children)):
            if self.whole[node]:
                for token in self.children[node].keys() & firsts.keys():
                    self._merge(self.children[node][token], firsts[token])
        return firsts

    def find(self, firsts: dict[int, int], word: tuple[int, ...]) -> int:
        """Return the node at which `word` ends, which has been added to the trie of `firsts`."""
        here, node = firsts, 0
        for token in word:
            node = here[token]
            here = self.children[node]
        return node

    def _merge(self, into: int, node: int) -> None:
        if into == node:
            return
        self.whole[into] = self.whole[into] or self.whole[node]
        for token, child in list(self.children[node].items()):
            if token in self.children[into]:
                self._merge(self.children[into][token], child)
            else:
                self.children[into][token] = child


class _Tables:
    """A batch of tries as tensors.

    Attributes:
        whole: whether a node ends a word, (nodes,).
        line: line of a node's children in `tokens` and `targets`, (nodes,); line 0 is empty.
        tokens: tokens of children, padded with `size`, (lines, most children).
        targets: nodes of these children, padded with 0.
        first: node of the word that a token begins, or _STOPPED if none, (rows, size).
        begins: whether a token begins a word, (rows, size).
    """

    def __init__(self, trie: _Trie, roots: Sequence[dict[int, int]], size: int, device: Any) -> None:
        inner = [node for node, children in enumerate(trie.children) if children]
        width = max((len(trie.children[node]) for node in inner), default=1)
        tokens = torch.full((len(inner) + 1, width), size, dtype=torch.long)
        targets = torch.zeros((len(inner) + 1, width), dtype=torch.long)
        line = torch.zeros(len(trie.children), dtype=torch.long)
        for i, node in enumerate(inner, start=1):
            children = trie.children[node]
            tokens[i, : len(children)] = torch.tensor(list(children))
            targets[i, : len(children)] = torch.tensor(list(children.values()))
            line[node] = i
        first = torch.full((len(roots), size), _STOPPED, dtype=torch.int32)
        for row, root in enumerate(roots):
            first[row, list(root)] = torch.tensor(list(root.values()), dtype=torch.int32)
        self.tokens, self.targets, self.line, self.first = (t.to(device) for t in (tokens, targets, line, first))
        self.whole = torch.tensor(trie.whole, device=device)
        self.begins = self.first > _CLOSED
