"""What steers an answer: facts to keep, words to choose from, a title to attach, and what makes it better. Pure."""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from capsfusion_etl.engines.base import Answer, Question
from capsfusion_etl.engines.config import FuserConfig
from capsfusion_etl.engines.generation.doubt import doubt
from capsfusion_etl.engines.generation.titles import title_of
from capsfusion_etl.engines.generation.vocabulary import sayable
from capsfusion_etl.judge import ACCEPTED, BOILERPLATE, Limits, judge
from capsfusion_etl.judge.grounding import facts_of
from capsfusion_etl.judge.lexicon import framing_words, free_words
from capsfusion_etl.prompts import MAX_SOURCE_CHARS

TITLED = "titled"  # the last word that the model writes before a title
_A = re.compile(r"\b([Aa])( (?:[aei]|o(?!ne\b|nce\b))[a-z])")  # "the old car" becomes "a old car" in small models
_FRAME_TOKENS = 12  # "is shown in a picture titled."


@dataclass(frozen=True, slots=True)
class Guide:
    """Guide of one answer.

    Attributes:
        facts: words that the answer should contain (see `coverage`).
        words: the only words and phrases that it may consist of (see `constrain`); None: any text.
        title: text of a title that the answer attaches at its end. It is not decoded: the model writes "titled", and
            this follows, which costs no time, and leaves no way to garble it.
        max_tokens: most tokens to decode; None: as many as the configuration says.
        prefer: returns how good a text is as an answer, added to its mean log-likelihood to choose among the beams.
    """

    facts: Sequence[str] = ()
    words: Iterable[str] | None = None
    title: str = ""
    max_tokens: int | None = None
    prefer: Callable[[str], float] | None = None


def guide_of(question: Question, config: FuserConfig) -> Guide:
    """Return the guide of the answer to `question`; without `only_sources` it only names the facts to keep."""
    (raw, synthetic), title = _sources(question), _title(question, config)
    facts = [f for f in facts_of(raw) if f.lower() not in BOILERPLATE]
    if not config.only_sources:
        return Guide(facts)

    def prefer(text: str) -> float:
        return _preferred(raw, synthetic, text, title, config.limits)

    if not title:
        return Guide(facts, sayable(raw, synthetic, free=free_words()), prefer=prefer)
    # Longer answers are loops. An English token has three letters or more, any other at least one byte.
    longest = (len(synthetic) // 3 if synthetic.isascii() else len(synthetic.encode())) + _FRAME_TOKENS
    return Guide(facts, sayable(synthetic, free=framing_words()), title, longest, prefer)


def with_doubt(question: Question, answer: Answer, config: FuserConfig) -> Answer:
    """Return the answer; with `only_sources`, with mended articles and what is doubtful in it (see `doubt`)."""
    if not config.only_sources or answer.text is None:
        return answer
    answer = with_articles(answer)
    return replace(answer, doubt=doubt(*_sources(question), answer.text or "", _title(question, config)))


def with_articles(answer: Answer) -> Answer:
    """Return the answer with "an old car" where a small model wrote "a old car"; a title stays as it is."""
    said, titled, title = (answer.text or "").partition(f" {TITLED} ")
    return replace(answer, text=_A.sub(lambda found: f"{found.group(1)}n{found.group(2)}", said) + titled + title)


def _sources(question: Question) -> tuple[str, str]:
    """Return the captions that the model sees."""
    return question.raw_caption[:MAX_SOURCE_CHARS], question.shown_synthetic[:MAX_SOURCE_CHARS]


def _title(question: Question, config: FuserConfig) -> str:
    """Return the title that the answer should attach; empty if it should build sentences of the raw caption."""
    raw, synthetic = _sources(question)
    return title_of(raw) if config.whole_titles and synthetic else ""


def _preferred(raw: str, synthetic: str, text: str, title: str, limits: Limits) -> float:
    """Return how good a caption is beyond its likelihood: the judge's verdict, the facts it keeps, and no doubt."""
    judgement = judge(raw, synthetic, text, limits)
    recall = judgement.grounding.recall
    doubts = -2.0 if doubt(raw, synthetic, text, title) else 0.0
    return (0.0 if judgement.verdict == ACCEPTED else -10.0) + (1.0 if recall is None else recall) + doubts
