"""Test the words of the sources as a grammar for vLLM, and that the engine `openai` sends it and reads what follows."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
from capsfusion_etl.dev_server import Behaviour
from capsfusion_etl.engines import Answer, FuserConfig, Question
from capsfusion_etl.engines.generation.grammar import grammar_of
from capsfusion_etl.engines.generation.guidance import Guide, guide_of, with_articles
from capsfusion_etl.engines.openai import OpenAIFuser


def test_a_grammar_has_each_word_once() -> None:
    assert grammar_of(Guide(words=["car", "a", "Lot 24", 'the "Comet"', "car"])) == (
        'unit ::= "Lot 24" | "a" | "car" | "the \\"Comet\\""\n'
        'said ::= unit "\'s"?\n'
        'words ::= said ((", " | ": " | " ") said)*\n'
        'root ::= " "? words "." (" " words ".")*'
    )
    with pytest.raises(ValueError, match="needs words"):
        grammar_of(Guide())


def test_a_grammar_offers_no_word_that_neither_source_has() -> None:
    question = Question("0" * 64, "Lot 24: a teak chair\n\tby Ã“ \\ Wegner", "A wooden chair on a floor.")
    config = FuserConfig(name="vllm", only_sources=True)
    units = grammar_of(guide_of(question, config)).partition("\n")[0]
    assert all(f'"{word}"' in units for word in ("teak", "Wegner", "wooden", "chairs", "Lot 24"))
    assert '"24"' not in units
    assert '"stunning"' not in units


def test_articles_are_mended_outside_of_the_title() -> None:
    said = Answer("There is a old car in a picture titled a old car.")
    assert with_articles(said).text == "There is an old car in a picture titled a old car."


def test_the_engine_openai_sends_the_grammar_and_doubts_what_comes_back(
    start: Callable[..., tuple[str, Behaviour]],
) -> None:
    base_url, _ = start(says="A bridge in Lisbon with a bridge bridge.")
    config = FuserConfig(name="openai", model="m", base_url=base_url, only_sources=True)
    question = Question("0" * 64, "Bridge 4 in Lisbon", "A bridge.")
    fuser = OpenAIFuser(config)
    body: dict[str, Any] = fuser.request(question)
    assert body["structured_outputs"] == {"grammar": grammar_of(guide_of(question, config))}
    assert "response_format" not in body
    assert json.dumps(body)

    async def ask() -> Answer:
        answer = await fuser.ask(question)
        await fuser.close()
        return answer

    assert asyncio.run(ask()).doubt
