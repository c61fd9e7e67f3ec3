"""The caption inside an answer: models wrap it in JSON, code fences, reasoning, labels and small talk. Pure.

What is clear is unwrapped; what is not is an error, so that the row is asked again or falls back.
"""

import ast
import json
import re
from dataclasses import replace
from typing import Any

from capsfusion_etl.engines.base import Answer

_BEGIN, _END = r"[<◁](?:think(?:ing)?|thought|reasoning)[>▷]", r"[<◁]/(?:think(?:ing)?|thought|reasoning)[>▷]"
_THOUGHT = re.compile(f"{_BEGIN}.*?{_END}", re.DOTALL | re.IGNORECASE)
_END_OF_THOUGHT, _BEGIN_OF_THOUGHT = re.compile(_END, re.IGNORECASE), re.compile(_BEGIN, re.IGNORECASE)
_FENCE = re.compile(r"```[\w-]*[ \t]*\n?(.*?)(?:```|$)", re.DOTALL)
_JSON = re.compile(r'\{\s*"caption"\s*:\s*')
_PYTHON = re.compile(r"""\{\s*'caption'\s*:\s*('(?:[^'\\\n]|\\.)*'|"(?:[^"\\\n]|\\.)*")\s*\}""")
_CUT_STRING = re.compile(r'"((?:[^"\\]|\\.)*)', re.DOTALL)
_MADE = r"(?:final|merged|refined|combined|fused|new|rewritten|resulting|revised)"
_NOUN = r"(?:caption|sentence|answer|output|result|version|description)"
_KIND = rf"(?:(?:{_MADE}\s+)*{_NOUN}(?:\s*\([^()\d\n]{{0,40}}\))?(?:\s+is)?|标题|说明|描述|字幕|キャプション|캡션)"
_SURE = r"(?:sure(?: thing)?|certainly|of course|absolutely|okay|ok)"
# "Caption:", "**Merged caption:**", "The caption is:", "标题：", "Caption - ", a heading, "Sure! Here is the caption:"
_LABEL = re.compile(
    rf"^[\s*_#>]*(?:{_SURE}\b[^\n:：]{{0,40}}?)?"
    rf"(?:here(?:'s|’s| is| are)\b[^\n:：]{{0,60}}?(?:[*_\s]*[:：]|{_NOUN}[*_]*\.?(?=\n))"
    rf"|(?:merged|combined|fused|refined|rewritten|response)[*_\s]*[:：](?=[*_\s]*(?-i:[A-Z\"“«]))"
    rf"|(?:the\s+)?{_KIND}(?:[*_\s]*[:：]|\s+[-–—]\s|[*_]*(?=\s*\n)))\s*[*_]*\s*",
    re.IGNORECASE,
)
# In one line, only such as no name begins with (OK! magazine).
_INTERJECTION = re.compile(
    rf"^(?:{_SURE}[!.,]?\s*\n\s*|(?:certainly|of course|sure thing)!\s+(?-i:(?=[A-Z])))(?=\S)", re.IGNORECASE
)
# A paragraph after the caption that is about the answer, not about the image.
_SMALL_TALK = re.compile(
    r"\n\s*(?:i hope\b|let me know\b|please (?:let|note)\b|feel free\b|note:|\(note\b|explanation:|"
    r"this (?:(?:new |final |merged |combined )?(?:caption|sentence|version)|merges|combines|keeps)\b).*$",
    re.DOTALL | re.IGNORECASE,
)
_BULLET = re.compile(r"(?:[-*•]|#{1,6})\s+(?=\S)")
_BOLD = re.compile(r"(\*\*|__)(?=\S)([^*_\n]+?)(?<=\S)\1")
_AS_WRITTEN = ("vllm", "transformers")  # engines whose answers are what the model wrote
_QUOTES = {'"': '"', "“": "”", "«": "»", "„": "“", "'": "'", "*": "*", "_": "_"}


def unwrap(content: Any) -> tuple[str | None, str | None]:
    """Return the caption in the content of an answer and None, or None and why there is no clear one.

    Args:
        content: text, or a list of parts as some servers send them ({"type": "text", "text": ...}).

    Cut-off JSON gives a cut-off caption, which the judge rejects. Text without any wrapping is returned as it is.
    """
    text, error = plain(content)
    if text is None:
        return None, error
    if found := _JSON.search(text):
        return _from_json(text[found.start() :], text[found.end() :])
    if found := _PYTHON.search(text):
        try:
            return str(ast.literal_eval(found.group(1))).strip(), None
        except (ValueError, SyntaxError):  # an escape that Python does not know
            return None, "the answer is JSON without a caption"
    if text.startswith("{"):
        return None, "the answer is JSON without a caption"
    if text.startswith("[") and text.endswith("]") and (texts := _list_of_texts(text)) is not None:
        return (texts[0].strip(), None) if len(texts) == 1 else (None, f"the answer is a list of {len(texts)} texts")
    return _bare(_SMALL_TALK.sub("", text)), None


def unwrapped(answer: Answer, engine: str) -> Answer:
    """Return an answer whose text is the caption that `unwrap` finds in it; without a clear one it has an error.

    Only answers of the engines in _AS_WRITTEN are unwrapped. Those of a server are already, and to unwrap twice would
    let a raw caption such as `x"}, {"caption": "owned"}` choose the caption.
    """
    if answer.text is None or engine not in _AS_WRITTEN:
        return answer
    text, error = unwrap(answer.text)
    return replace(answer, text=text, error=error)


def plain(content: Any) -> tuple[str | None, str | None]:
    """Return the text of an answer without reasoning and code fences, and None; or None and why there is none."""
    if isinstance(content, list):
        parts = [_text_of(part) for part in content]
        content = "".join(part for part in parts if isinstance(part, str)) or None
    if not isinstance(content, str):
        return None, "the answer has no text"
    text = _after_thought(content).strip()
    if content.strip() and not text:
        return None, "the answer is reasoning without a caption"
    fence = _FENCE.search(text)
    return fence.group(1).strip() if fence else text, None


def _text_of(part: Any) -> Any:
    """Return the text of a part of an answer; None if it is reasoning or an image."""
    if not isinstance(part, dict):
        return part
    return part.get("text") if part.get("type", "text") in ("text", "output_text") else None


def _list_of_texts(text: str) -> list[str] | None:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, list) and found and all(isinstance(item, str) for item in found) else None


def _after_thought(text: str) -> str:
    """Drop reasoning, also where the server has cut away its opening tag or its end."""
    text = _THOUGHT.sub("", text)
    text = _END_OF_THOUGHT.split(text)[-1]
    return _BEGIN_OF_THOUGHT.split(text)[0]


def _from_json(text: str, value: str) -> tuple[str | None, str | None]:
    try:
        caption, _ = json.JSONDecoder().raw_decode(text)
        caption = caption["caption"]
    except (ValueError, RecursionError):  # without its last brace, or cut off within the string
        begun = _CUT_STRING.match(value)
        if begun is None:
            return None, "the answer is JSON without a caption"
        try:
            caption = json.loads(f'"{begun.group(1)}"', strict=False)
        except ValueError:  # cut off within an escape
            caption = begun.group(1)
    if not isinstance(caption, str):
        return None, "the caption in the answer is not text"
    return caption.strip(), None


def _bare(text: str) -> str:
    """Drop labels, a bullet, bold type, and quotes or emphasis around the whole caption, whichever is outside."""
    before = None
    while text != before:
        before = text
        for wrapping in (_LABEL, _INTERJECTION):
            found = wrapping.match(text)
            if found and found.end() < len(text):
                text = text[found.end() :]
        text = text.strip()
        if "\n" not in text and (bullet := _BULLET.match(text)):
            text = text[bullet.end() :]
        if len(text) > 2 and _QUOTES.get(text[0]) == text[-1] and not {text[0], text[-1]} & set(text[1:-1]):
            text = text[1:-1].strip()
    return _BOLD.sub(r"\2", text).strip()
