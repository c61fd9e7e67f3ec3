"""The caption inside an answer."""

import json
import random

import pytest
from capsfusion_etl.engines.unwrap import unwrap

X = "A bridge in Lisbon, 1998."


@pytest.mark.parametrize(
    "content",
    [
        X,
        f"  {X}\n",
        json.dumps({"caption": X}),
        json.dumps({"caption": X}) + "\nI hope this helps.",
        f"Sure! {json.dumps({'caption': X})}",
        json.dumps({"caption": X})[:-1],
        f'```json\n{{"caption": "{X}"}}\n```',
        f"```\n{X}\n```",
        f'<think>Sentence 1 names Lisbon: so "caption".</think>\n{X}',
        f"so it is a bridge.</think>{X}",
        f"Caption: {X}",
        f"**Merged caption:** {X}",
        f"Here is the merged caption: {X}",
        f"Here's the refined sentence:\n\n{X}",
        f"Sure, here is the caption: {X}",
        f'Here is the new sentence: "{X}"',
        f"“{X}”",
        f"**{X}**",
        f"- {X}",
        "A **bridge** in __Lisbon__, 1998.",
        f"{X}\n\nLet me know if you need anything else!",
        [{"type": "text", "text": X}],
        [{"type": "reasoning", "summary": "x"}, {"type": "text", "text": X}],
        [{"type": "reasoning", "text": "Both name Lisbon."}, {"type": "text", "text": X}],
        json.dumps([X]),
        f"```json\n{json.dumps([X])}\n```",
        f"Sure: {{'caption': '{X}'}} done.",
        f"Caption - {X}",
        f"Caption：{X}",
        f"标题：{X}",
        f"Caption (merged): {X}",
        f"The merged caption is: {X}",
        f"Response: {X}",
        f"Merged: {X}",
        f'"Caption: {X}"',
        f"**Caption**\n\n{X}",
        f"Here is your caption.\n{X}",
        f"Certainly! {X}",
        f"Sure thing!\n\n{X}",
        f"{X}\n\nThis merges both sentences.",
        f"◁think▷Both name Lisbon.◁/think▷{X}",
        f"# {X}",
    ],
)
def test_what_is_clear_is_unwrapped(content: object) -> None:
    assert unwrap(content) == (X, None)


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (None, "no text"),
        ([], "no text"),
        (7, "no text"),
        ({"text": X}, "no text"),
        ("<think>What a bridge", "reasoning without a caption"),
        ("<think>What a bridge.</think>", "reasoning without a caption"),
        ('{"title": "x"}', "JSON without a caption"),
        ('{"caption": null}', "not text"),
        ('{"caption": ["x"]}', "not text"),
        ('["A bridge.", "A river."]', "list of 2 texts"),
        (r"{'caption': 'logo \x'}", "JSON without a caption"),
        ([{"type": "reasoning", "text": "hm"}], "no text"),
    ],
)
def test_what_is_not_clear_is_an_error(content: object, error: str) -> None:
    text, why = unwrap(content)
    assert text is None
    assert error in (why or "")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Here it is: the bridge.",
        "Note: the bridge is closed.",
        "Anna's answer: a bridge.",
        'A sign says "Open" and another "Closed".',
        "The caption of the year: Lisbon.",
        "Final - Wimbledon 2019, Federer serves.",
        "Combined harvester in a field.",
        "Sure, a man walks.",
        "Photo [1] of [2]",
        "Version control: the book.",
        "OK! magazine cover with Kate Moss.",
        "Sure! deodorant cans in a row.",
        "Refined: the elegant art of Japanese tea bowls.",
        "The response: firefighters arrive at night.",
        "Sentence (2019): a French poster.",
        "{ broken brackets",
    ][:-1],
)
def test_captions_that_look_wrapped_stay(text: str) -> None:
    assert unwrap(text) == (text, None)


def test_a_caption_that_was_cut_stays_cut() -> None:
    assert unwrap('{"caption": "A bridge in Lis') == ("A bridge in Lis", None)
    assert unwrap('{"caption": "A bridge \\"Old\\" in \\u00e') == ('A bridge \\"Old\\" in \\u00e', None)


def test_no_mutation_of_an_answer_raises() -> None:
    chance = random.Random(3)
    originals = [
        json.dumps({"caption": X}), f'```json\n{{"caption": "{X}"}}\n```', f"<think>a</think>{X}", f"Caption: {X}",
        json.dumps({"caption": "\ud83d half a pair, \\ and \" and \u2028"}), "[" * 300, '{"caption": ' * 300,
    ]  # fmt: skip
    for _ in range(20_000):
        text = list(chance.choice(originals))
        for _ in range(chance.randint(1, 8)):
            text[chance.randrange(len(text))] = chance.choice('{}[]"\\:`<>/\n\u0000\ud83dtx*')
        found, error = unwrap("".join(text))
        assert (found is None) == (error is not None)
