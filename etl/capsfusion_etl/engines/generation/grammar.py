"""The words that an answer may consist of, as a grammar for vLLM, which decodes by one. Pure.

It is what `constrain` does to the logits of a model in this process: words of the sources and plain words, with commas
and full stops between them.
"""

import json

from capsfusion_etl.engines.generation.guidance import Guide


def grammar_of(guide: Guide) -> str:
    """Return a grammar in EBNF, as xgrammar reads it, for the answers that consist of `guide.words`."""
    words = sorted({" ".join(word.split()) for word in guide.words or ()} - {""})
    if not words:
        raise ValueError("a grammar needs words")
    units = " | ".join(_literal(word) for word in words)
    return "\n".join(
        [
            f"unit ::= {units}",
            'said ::= unit "\'s"?',
            'words ::= said ((", " | ": " | " ") said)*',
            'root ::= " "? words "." (" " words ".")*',
        ]
    )


def _literal(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
