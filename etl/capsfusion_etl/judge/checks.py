"""Verdicts on fused captions, row by row.

A check is a pure function of a row; the list CHECKS is the policy.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

from capsfusion_etl.judge.binding import misbound
from capsfusion_etl.judge.grounding import Grounding, ground
from capsfusion_etl.judge.limits import Limits
from capsfusion_etl.judge.scripts import ends_sentence, normalize, repeated
from capsfusion_etl.judge.sentence import has_finite_verb, own_object, said_twice
from capsfusion_etl.judge.support import Support, support

ACCEPTED = "accepted"

_ECHO = re.compile(
    r"\bsentences? ?[12]\b|\b(?:first|second|two (?:given )?) sentences?\b|\b(?:raw|synthetic) caption\b"
    r"|\breal[- ]world (?:details|information|knowledge)\b|\b(?:merged?|refined|combined|new|given) sentences?\b"
    r"|\bsentence structure\b",
    re.IGNORECASE,
)
_REFUSAL = re.compile(
    r"^\W*(?:i(?:['’]m| am) (?:sorry|(?:unable|not able) to|afraid i)|as (?:an ai|a (?:large )?language model)\b|"
    r"(?:i )?apologi[sz]e (?:for|but)|sorry[,.!] (?:but )?(?:i|there|no image)\b|unfortunately, (?:i|there is no)\b|"
    r"i (?:can(?:['’]|no)t|could(?:n['’]t| not)|do(?:n['’]t| not)) (?:see|view|find|generate|create|provide|process|"
    r"access|describe|help|assist|identify|have|fulfill|comply|determine|make|read|merge|combine)\b|"
    r"(?:please|could you(?: please)?|can you(?: please)?) (?:provide|upload|share|attach|send) "
    r"(?:me )?(?:the|an?|your|another) (?:\w+ )?(?:image|picture|photo|caption|sentence)|"
    r"(?:there is |there['’]s )?no image (?:is |was |has been )?(?:attached|provided|uploaded|available)\b)",
    re.IGNORECASE,
)
# What models and libraries write instead of nothing.
_NOTHING = re.compile(
    r"\W*(?:none|n/?a|null|nil|nan|undefined|unknown|untitled|image|picture|photo|"
    r"(?:no|empty) (?:caption|description))\W*",
    re.IGNORECASE,
)
RESIDUE = re.compile(
    r"https?://|<\|\w{1,20}\|>|\bwww\.\w|\b[\w.+-]+@[\w-]+\.\w{2,}|</?[a-z][^>]*>|&(?:[a-z]{2,8}|#\d+);"
    r"|\b[\w-]+\.(?:com|net|org|jpe?g|png|gif|html?)\b",
    re.IGNORECASE,
)
_PHONE = re.compile(r"\d{3}\)?[ .-]\d{3}[ .-]\d{4}(?!\d)")  # no country code: a leading digit makes the search fast
# Words of shops, stock agencies and titles, often capitalised; a caption that loses them loses no fact.
BOILERPLATE = frozenset(
    {
        "0", "also", "and", "are", "banco", "beauty", "best", "buy", "by", "design", "download", "enter", "footage",
        "for", "free", "from", "her", "here", "his", "home", "how", "idea", "ideas", "image", "images", "imagens",
        "its", "more", "name", "not", "online", "our", "photo", "photography", "photos", "pic", "pics", "picture",
        "pictures", "pinterest", "post", "product", "sale", "sets", "shop", "stock", "the", "their", "tips", "vector",
        "video", "view", "wallpaper", "well", "with", "your",
    }
)  # fmt: skip
# Hashtags, and lists of four or more phrases of one to three capitalised words each, separated by commas.
_KEYWORDS = re.compile(r"#\w+|(?:(?:[A-Z][\w'’-]*\s){0,2}[A-Z][\w'’-]*,\s*){3,}(?:[A-Z][\w'’-]*\s?){1,3}")


@dataclass(frozen=True, slots=True)
class Row:
    """Input of a check.

    Attributes:
        raw: the raw caption.
        synthetic: the synthetic caption.
        fused: the model's answer.
        grounding: facts that the answer keeps, loses and invents.
        support: words that neither source supports.
        limits: the thresholds.
        normalized: the answer's words, see `normalize`.
    """

    raw: str
    synthetic: str
    fused: str
    grounding: Grounding
    support: Support
    limits: Limits
    normalized: str

    @classmethod
    def of(cls, raw: str, synthetic: str, fused: str, limits: Limits | None = None) -> Self:
        """Build a row, and compute its grounding and support; `limits` are the defaults if None."""
        grounding, supported = ground(raw, synthetic, fused), support(fused, raw, synthetic)
        return cls(raw, synthetic, fused, grounding, supported, limits or Limits(), normalize(fused))


@dataclass(frozen=True, slots=True)
class Judgement:
    """Result for one row: `verdict` is "accepted" or the name of the first failing check, `detail` what it found."""

    verdict: str
    detail: str
    grounding: Grounding
    support: Support = Support()  # noqa: RUF009  frozen


def empty(row: Row) -> str | None:
    """The fused caption has no words."""
    return None if row.normalized else "no word"


def too_long(row: Row) -> str | None:
    """The fused caption is longer than `max_chars`."""
    return f"{len(row.fused)} characters" if len(row.fused) > row.limits.max_chars else None


def refusal(row: Row) -> str | None:
    """The model talks about itself instead of the image."""
    found = _REFUSAL.search(row.fused)
    return found.group() if found and found.group().lower() not in f"{row.raw} {row.synthetic}".lower() else None


def instruction_echo(row: Row) -> str | None:
    """The fused caption repeats words of the prompt that neither source contains."""
    if not any(word in row.normalized for word in ("sentence", "caption", "real")):  # fast path for most rows
        return None
    sources = f"{row.raw} {row.synthetic}".lower()
    return next((m.group() for m in _ECHO.finditer(row.fused) if m.group().lower() not in sources), None)


def residue(row: Row) -> str | None:
    """The fused caption contains a URL, a host or file name, HTML, an e-mail address or a phone number."""
    found = _PHONE.search(row.fused)
    if found is None and any(sign in row.fused[:-1] for sign in ".@<&/"):
        found = RESIDUE.search(row.fused)
    return found.group() if found else None


def repetition(row: Row) -> str | None:
    """The same three consecutive words occur at least three times; in scripts without spaces, six letters."""
    return repeated(row.normalized)


def concatenation(row: Row) -> str | None:
    """The fused caption contains both sources verbatim, ignoring punctuation and case."""
    raw = normalize(row.raw)
    if not raw or raw not in row.normalized:
        return None
    synthetic = normalize(row.synthetic)
    both = synthetic and synthetic in row.normalized and raw not in synthetic and synthetic not in raw
    return "both inputs verbatim" if both else None


def cut_off(row: Row) -> str | None:
    """The fused caption does not end like a sentence."""
    return None if ends_sentence(row.fused) else row.fused.rstrip()[-30:]


def invented_number(row: Row) -> str | None:
    """More than `max_invented_numbers` numbers occur in neither source."""
    found = row.grounding.invented_numbers
    return ", ".join(found) if len(found) > row.limits.max_invented_numbers else None


def invented_name(row: Row) -> str | None:
    """More than `max_invented_names` names (capitalised words inside a sentence) occur in neither source."""
    found = row.grounding.invented_names
    return ", ".join(found) if len(found) > row.limits.max_invented_names else None


def no_verb(row: Row) -> str | None:
    """The fused caption has no finite verb, so it is no sentence; a caption that contains a source verbatim passes."""
    if has_finite_verb(row.fused):
        return None
    sources = map(normalize, (row.raw, row.synthetic))
    return None if any(text and text in row.normalized for text in sources) else row.fused[:30]


def clause_twice(row: Row) -> str | None:
    """The fused caption says the same five words twice, or makes a thing the object of itself."""
    sources = f"{row.raw} {row.synthetic}"
    return said_twice(row.fused, sources) or own_object(row.fused, sources)


def wrong_binding(row: Row) -> str | None:
    """A number of the fused caption has another currency, unit or noun than in its source."""
    return misbound(row.fused, row.raw, row.synthetic)


def unsupported(row: Row) -> str | None:
    """More than `max_unsupported` content words occur in neither source, in no inflection and under no plain synonym.

    A gender that no source states, or a word that claims fame, frequency, purpose or knowledge, is unsupported at once.
    """
    found, claims = row.support.unsupported, row.support.genders + row.support.claims
    return ", ".join(claims + found) if claims or len(found) > row.limits.max_unsupported else None


def embellished(row: Row) -> str | None:
    """More than `max_embellished` words only praise or fill, and occur in neither source."""
    found = row.support.embellished
    return ", ".join(found) if len(found) > row.limits.max_embellished else None


def fragment(row: Row) -> str | None:
    """The fused caption begins inside a sentence: in lower case, with a word that begins neither source."""
    first = re.match(r"[\"'“‘(]*([a-z]\w*)", row.fused)
    if first is None or re.match(r"[a-z]+[A-Z\d]", first.group(1)):  # such as iPhone, e3
        return None
    opens = any(source.lower().startswith(first.group(1)) for source in (row.raw, row.synthetic))
    return None if opens else row.fused[:30]


def knowledge_lost(row: Row) -> str | None:
    """The raw caption states at least three facts, and the fused caption keeps less than `min_recall` of them.

    Boilerplate, hashtags, lists of keywords and ids of five or more digits are not counted as lost. A raw caption
    without spaces (a URL or a file name) passes.
    """
    if len(row.grounding.kept) >= row.limits.min_recall * (len(row.grounding.kept) + len(row.grounding.lost)):
        return None  # fast path for most rows
    if not re.search(r"\s", row.raw.strip()):
        return None
    grounding = ground(_KEYWORDS.sub(" ", row.raw), "", row.fused)
    decades = {fact for fact in grounding.lost if fact.isdigit() and f"{fact}s" in row.fused}  # "40s" became "1940s"
    lost = [f for f in grounding.lost if f not in BOILERPLATE and f not in decades and not re.fullmatch(r"\d{5,}", f)]
    total = len(grounding.kept) + len(decades) + len(lost)
    return f"lost {', '.join(lost)}" if total > 2 and total - len(lost) < row.limits.min_recall * total else None


Check = Callable[[Row], str | None]
# In order: the first failing check gives the verdict. A check returns what it found, or None if the row passes.
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
    wrong_binding,
    unsupported,
    embellished,
    clause_twice,
    no_verb,
]


# Those that need no sources.
_ALONE: list[Check] = [empty, too_long, refusal, instruction_echo, residue, repetition]


def fault_of_synthetic(caption: str, limits: Limits | None = None) -> str | None:
    """Return why a synthetic caption is none ("refusal: I'm sorry"), or None if it is one; `limits` as for `judge`."""
    if _NOTHING.fullmatch(caption):
        return f"empty: {caption.strip()}"
    row = Row("", "", caption, Grounding(), Support(), limits or Limits(), normalize(caption))
    return next((f"{check.__name__}: {found}" for check in _ALONE if (found := check(row)) is not None), None)


def judge(raw: str, synthetic: str, fused: str, limits: Limits | None = None) -> Judgement:
    """Judge one fused caption; `limits` are the defaults if None. Never raises; any text may be empty."""
    row = Row.of(raw, synthetic, fused, limits)
    for check in CHECKS:
        detail = check(row)
        if detail is not None:
            return Judgement(check.__name__, detail, row.grounding, row.support)
    return Judgement(ACCEPTED, "", row.grounding, row.support)
