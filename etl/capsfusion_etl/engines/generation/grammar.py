"""The words that an answer may consist of, as a grammar for vLLM, which decodes by one. Pure.

It is what `constrain` does to the logits of a model in this process: words of the sources and plain words, commas and
full stops between them, and at the end the whole title, if there is one.
"""

import json

from capsfusion_etl.engines.generation.guidance import TITLED, Guide


def grammar_of(guide: Guide) -> str:
    """Return a grammar in EBNF, as xgrammar reads it, for the answers that `guide.words` and `guide.title` allow."""
    words = sorted({" ".join(word.split()) for word in guide.words or ()} - {""})
    if not words:
        raise ValueError("a grammar needs words")
    units = " | ".join(_literal(word) for word in words)
    lines = [f"unit ::= {units}", 'said ::= unit "\'s"?', 'words ::= said ((", " | ": " | " ") said)*']
    if guide.title:
        lines += [f'root ::= " "? words " {TITLED} " {_literal(guide.title)} "."']
    else:
        lines += ['root ::= " "? words "." (" " words ".")*']
    return "\n".join(lines)


def _literal(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
