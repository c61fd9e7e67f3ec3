"""Caption metrics against references: CIDEr-D (Vedantam et al. 2015), BLEU (Papineni et al. 2002), ROUGE-L (Lin 2004).

The figures equal those of pycocoevalcap, but need no Java; a test compares the two. METEOR is omitted: no library
without Java gives the same figure.
"""

import math
from collections import Counter
from collections.abc import Sequence

from capsfusion_trainer.evaluation.ptb_tokenizer import tokens

_N = 4  # longest n-gram
_SIGMA = 6.0  # width of CIDEr-D's penalty on a difference in length
_TINY, _SMALL = 1e-15, 1e-9  # prevent a division by zero in BLEU
_BETA = 1.2  # weight of recall in ROUGE-L

Ngram = tuple[str, ...]
Vector = list[dict[Ngram, float]]


def cider_d(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """Return the mean CIDEr-D over the candidates (see `cider_d_each`); 0 without any."""
    return sum(cider_d_each(candidates, references)) / max(len(candidates), 1)


def cider_d_each(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> list[float]:
    """Return the CIDEr-D of each candidate, times 10 as usual; each has one or more references.

    Document frequencies come from the given references, so the figure depends on the whole set: for a single candidate
    it is 0.
    """
    refs = [[_ngrams(tokens(text)) for text in group] for group in references]
    frequency = Counter(gram for group in refs for gram in {g for counts in group for g in counts})
    size = math.log(max(len(refs), 1))
    found = []
    for candidate, group in zip(candidates, refs, strict=True):
        counts = _ngrams(tokens(candidate))
        mine, length = _weigh(counts, frequency, size), _length(counts)
        scores = [_similarity(mine, _weigh(r, frequency, size), length - _length(r)) for r in group]
        found.append(10 * sum(scores) / len(scores))
    return found


def rouge_l(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """Return the mean ROUGE-L (F, beta 1.2) over the candidates, from each one's best precision and best recall."""
    total = 0.0
    for candidate, group in zip(candidates, references, strict=True):
        mine = tokens(candidate)
        pairs = [(_common(mine, ref), len(ref)) for ref in map(tokens, group)]
        precision = max((n / len(mine) for n, _ in pairs), default=0.0) if mine else 0.0
        recall = max((n / size for n, size in pairs if size), default=0.0)
        if precision and recall:
            total += (1 + _BETA**2) * precision * recall / (recall + _BETA**2 * precision)
    return total / max(len(candidates), 1)


def bleu(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> list[float]:
    """Return BLEU-1 to BLEU-4 of the corpus; the brevity penalty uses the reference with the closest length."""
    right, said = [0] * _N, [0] * _N
    length = closest = 0
    for candidate, group in zip(candidates, references, strict=True):
        words, refs = tokens(candidate), [tokens(text) for text in group]
        length += len(words)
        closest += min((abs(len(r) - len(words)), len(r)) for r in refs)[1]
        most: Counter[Ngram] = Counter()
        for ref in refs:
            most |= _ngrams(ref)
        counts = _ngrams(words)
        for n in range(_N):
            said[n] += max(0, len(words) - n)
            right[n] += sum(min(count, most[gram]) for gram, count in counts.items() if len(gram) == n + 1)
    ratio = (length + _TINY) / (closest + _SMALL)
    penalty = 1.0 if ratio >= 1 else math.exp(1 - 1 / ratio)
    product, scores = 1.0, []
    for n in range(_N):
        product *= (right[n] + _TINY) / (said[n] + _SMALL)
        scores.append(product ** (1 / (n + 1)) * penalty)
    return scores


def _ngrams(words: list[str]) -> Counter[Ngram]:
    return Counter(tuple(words[i : i + n]) for n in range(1, _N + 1) for i in range(len(words) - n + 1))


def _length(counts: Counter[Ngram]) -> int:
    """Return the number of bigrams, which pycocoevalcap uses as the length of a text."""
    return sum(count for gram, count in counts.items() if len(gram) == 2)


def _weigh(counts: Counter[Ngram], frequency: Counter[Ngram], size: float) -> Vector:
    vector: Vector = [{} for _ in range(_N)]
    for gram, count in counts.items():
        vector[len(gram) - 1][gram] = count * (size - math.log(max(1, frequency[gram])))
    return vector


def _similarity(mine: Vector, reference: Vector, difference: int) -> float:
    """Return the mean cosine over n of the clipped vectors, times the penalty for the difference in length."""
    total = 0.0
    for ours, theirs in zip(mine, reference, strict=True):
        dot = sum(min(weight, theirs[gram]) * theirs[gram] for gram, weight in ours.items() if gram in theirs)
        norm = math.sqrt(sum(w * w for w in ours.values())) * math.sqrt(sum(w * w for w in theirs.values()))
        total += dot / norm if norm else 0.0
    return total / _N * math.exp(-(difference**2) / (2 * _SIGMA**2))


def _common(first: list[str], second: list[str]) -> int:
    """Return the length of the longest common subsequence."""
    row = [0] * (len(second) + 1)
    for word in first:
        diagonal = 0
        for j, other in enumerate(second, start=1):
            diagonal, row[j] = row[j], diagonal + 1 if word == other else max(row[j], row[j - 1])
    return row[-1]
