"""Verdicts on fused captions, row by row: a check is a pure function, their list is the policy (design section 5)."""

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

from capsfusion_etl.judge.grounding import Grounding, ground

ACCEPTED = "accepted"

_ECHO = re.compile(
    r"\bsentences? ?[12]\b|\b(?:first|second|two (?:given )?) sentences?\b|\b(?:raw|synthetic) caption\b"
    r"|\breal[- ]world (?:details|information|knowledge)\b|\b(?:merged?|refined|combined|new|given) sentences?\b"
    r"|\bsentence structure\b",
    re.IGNORECASE,
)
_TOKEN = re.compile(r"\w+")
_REFUSAL = re.compile(
    r"^\W*(?:i(?:'m| am) sorry|sorry,|i (?:can(?:'|no)t|am unable|do not have)|as an ai\b|unfortunately, i\b)",
    re.IGNORECASE,
)
_RESIDUE = re.compile(
    r"https?://|\bwww\.\w|\b[\w.+-]+@[\w-]+\.\w{2,}|</?[a-z][^>]*>|&(?:[a-z]{2,8}|#\d+);"
    r"|\b[\w-]+\.(?:com|net|org|jpe?g|png|gif|html?)\b",
    re.IGNORECASE,
)
_PHONE = re.compile(r"\d{3}\)?[ .-]\d{3}[ .-]\d{4}(?!\d)")  # without its country: beginning with a digit, it is quick
# Capitalised words of shops, picture agencies and titles: losing them is no loss.
BOILERPLATE = frozenset(
    {
        "0", "also", "and", "are", "banco", "beauty", "best", "buy", "by", "design", "download", "enter", "footage",
        "for", "free", "from", "her", "here", "his", "home", "how", "idea", "ideas", "image", "images", "imagens",
        "its", "more", "name", "not", "online", "our", "photo", "photography", "photos", "pic", "pics", "picture",
        "pictures", "pinterest", "post", "product", "sale", "sets", "shop", "stock", "the", "their", "tips", "vector",
        "video", "view", "wallpaper", "well", "with", "your",
    }
)  # fmt: skip
# Hashtags, and four phrases or more of one to three capitalised words each, with commas between them.
_KEYWORDS = re.compile(r"#\w+|(?:(?:[A-Z][\w'’-]*\s){0,2}[A-Z][\w'’-]*,\s*){3,}(?:[A-Z][\w'’-]*\s?){1,3}")
# A sentence end; a credit in brackets or hashtags may follow it.
_END = re.compile(r"[.!?…][\"'”’)\]]*(?:\s*\([^()]*\)|(?:\s+#\w+)+)?$")


@dataclass(frozen=True, slots=True)
class Limits:
    """Thresholds of the checks; lengths in characters, recall as a share of the raw caption's facts."""

    max_chars: int = 1_000
    max_invented_numbers: int = 0
    max_invented_names: int = 0
    min_recall: float = 0.2


@dataclass(frozen=True, slots=True)
class Row:
    """What a check sees: the two sources, the answer, its ledger and the thresholds; `normalized` is the answer's words."""

    raw: str
    synthetic: str
    fused: str
    grounding: Grounding
    limits: Limits
    normalized: str

    @classmethod
    def of(cls, raw: str, synthetic: str, fused: str, limits: Limits | None = None) -> Self:
        """A row with its ledger."""
        return cls(raw, synthetic, fused, ground(raw, synthetic, fused), limits or Limits(), normalize(fused))


@dataclass(frozen=True, slots=True)
class Judgement:
    """`verdict` is "accepted" or the name of the first check that failed; `detail` shows what it saw."""

    verdict: str
    detail: str
    grounding: Grounding


def normalize(text: str) -> str:
    """Words in lower case, one space between: what is left when punctuation and case are put aside."""
    return " ".join(_TOKEN.findall(text.lower()))


def empty(row: Row) -> str | None:
    """No word at all."""
    return None if row.normalized else "no word"


def too_long(row: Row) -> str | None:
    """Longer than `max_chars`."""
    return f"{len(row.fused)} characters" if len(row.fused) > row.limits.max_chars else None


def refusal(row: Row) -> str | None:
    """The model talks about itself instead of the picture."""
    found = _REFUSAL.search(row.fused)
    return found.group() if found and found.group().lower() not in f"{row.raw} {row.synthetic}".lower() else None


def instruction_echo(row: Row) -> str | None:
    """Words of the prompt that neither source holds."""
    if not any(word in row.normalized for word in ("sentence", "caption", "real")):  # in most cases, and far cheaper
        return None
    sources = f"{row.raw} {row.synthetic}".lower()
    return next((m.group() for m in _ECHO.finditer(row.fused) if m.group().lower() not in sources), None)


def residue(row: Row) -> str | None:
    """URL, HTML, e-mail or phone number."""
    found = _PHONE.search(row.fused)
    if found is None and any(sign in row.fused[:-1] for sign in ".@<&/"):
        found = _RESIDUE.search(row.fused)
    return found.group() if found else None


def repetition(row: Row) -> str | None:
    """The same three words three times over."""
    tokens = row.normalized.split()
    trigrams = list(zip(tokens, tokens[1:], tokens[2:], strict=False))
    if len(trigrams) - len(set(trigrams)) < 2:
        return None
    return next((" ".join(t) for t, n in Counter(trigrams).items() if n >= 3), None)


def concatenation(row: Row) -> str | None:
    """Both inputs verbatim, punctuation and case aside."""
    raw = normalize(row.raw)
    if not raw or raw not in row.normalized:
        return None
    synthetic = normalize(row.synthetic)
    both = synthetic and synthetic in row.normalized and raw not in synthetic and synthetic not in raw
    return "both inputs verbatim" if both else None


def cut_off(row: Row) -> str | None:
    """No sentence end."""
    return None if _END.search(row.fused.rstrip()) else row.fused.rstrip()[-30:]


def invented_number(row: Row) -> str | None:
    """A number that neither source holds."""
    found = row.grounding.invented_numbers
    return ", ".join(found) if len(found) > row.limits.max_invented_numbers else None


def invented_name(row: Row) -> str | None:
    """A capitalised word inside a sentence that neither source holds."""
    found = row.grounding.invented_names
    return ", ".join(found) if len(found) > row.limits.max_invented_names else None


def fragment(row: Row) -> str | None:
    """Begins in the middle of a sentence: in lower case, with a word that opens neither source."""
    first = re.match(r"[\"'“‘(]*([a-z]\w*)", row.fused)
    if first is None or re.match(r"[a-z]+[A-Z\d]", first.group(1)):  # iPhone, e3
        return None
    opens = any(source.lower().startswith(first.group(1)) for source in (row.raw, row.synthetic))
    return None if opens else row.fused[:30]


def knowledge_lost(row: Row) -> str | None:
    """The raw caption states three facts or more, boilerplate aside, and hardly one survived: why fuse at all?

    Hashtags, lists of keywords and long ids are for machines; so is a raw caption that is an address or a file name.
    """
    if len(row.grounding.kept) >= row.limits.min_recall * (len(row.grounding.kept) + len(row.grounding.lost)):
        return None  # in most cases, and cheap to know
    if not re.search(r"\s", row.raw.strip()):
        return None
    grounding = ground(_KEYWORDS.sub(" ", row.raw), "", row.fused)
    decades = {fact for fact in grounding.lost if fact.isdigit() and f"{fact}s" in row.fused}  # late 40s: the 1940s
    lost = [f for f in grounding.lost if f not in BOILERPLATE and f not in decades and not re.fullmatch(r"\d{5,}", f)]
    total = len(grounding.kept) + len(decades) + len(lost)
    return f"lost {', '.join(lost)}" if total > 2 and total - len(lost) < row.limits.min_recall * total else None


Check = Callable[[Row], str | None]
# In order: the first that speaks names the verdict. A check returns what it saw, or None.
CHECKS: list[Check] = [
    empty,
    too_long,
    refusal,
    instruction_echo,
    residue,
    repetition,
    concatenation,
    cut_off,
    fragment,
    invented_number,
    invented_name,
    knowledge_lost,
]


def judge(raw: str, synthetic: str, fused: str, limits: Limits | None = None) -> Judgement:
    """Judge one fused caption. Never raises; every text may be empty."""
    row = Row.of(raw, synthetic, fused, limits)
    for check in CHECKS:
        detail = check(row)
        if detail is not None:
            return Judgement(check.__name__, detail, row.grounding)
    return Judgement(ACCEPTED, "", row.grounding)
