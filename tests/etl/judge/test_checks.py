"""Test the judge's verdicts, its limits and the grounding of captions."""

import time

import pytest
from capsfusion_etl.judge import ACCEPTED, CHECKS, Limits, judge
from capsfusion_etl.judge.checks import fault_of_synthetic
from capsfusion_etl.judge.grounding import ground, numbers, words_and_names
from hypothesis import given
from hypothesis import strategies as st

RAW = "Old Harbour Bridge Lisbon 1998 postcard"
SYNTHETIC = "a bridge over a body of water"


@pytest.mark.parametrize(
    ("fused", "verdict"),
    [
        ("A postcard from 1998 shows the Old Harbour Bridge in Lisbon over the water.", ACCEPTED),
        ("", "empty"),
        ("...!", "empty"),
        ("A bridge. " * 200, "too_long"),
        ("I'm sorry, I cannot see the picture.", "refusal"),
        ("Sentence 1 describes the Old Harbour Bridge in Lisbon.", "instruction_echo"),
        ("The merged sentence is about a bridge in Lisbon.", "instruction_echo"),
        ("The Old Harbour Bridge in Lisbon, see www.example for more.", "residue"),
        ("The <b>Old Harbour Bridge</b> in Lisbon.", "residue"),
        ("Call 555-123-4567 for the Old Harbour Bridge.", "residue"),
        ("A bridge in town, a bridge in town, a bridge in town.", "repetition"),
        (f"{RAW}, {SYNTHETIC}.", "concatenation"),
        ("A 1998 postcard of the Old Harbour Bridge in", "cut_off"),
        ("A 1998 postcard of the Old Harbour Bridge. (Photo by Ana", "cut_off"),
        ("A 1998 postcard shows the Old Harbour Bridge. (Lisbon)", ACCEPTED),
        ("A 1998 postcard shows the Old Harbour Bridge. #Lisbon", ACCEPTED),
        ("is shown on a postcard of the Old Harbour Bridge.", "fragment"),
        ("old Harbour Bridge in Lisbon is on a postcard.", ACCEPTED),
        ("iPhone picture that shows the Old Harbour Bridge in Lisbon.", ACCEPTED),
        ("Two boats on a body of water.", "knowledge_lost"),
        ("A 1999 postcard of the Old Harbour Bridge in Lisbon.", "invented_number"),
        ("A 1998 postcard of the Old Harbour Bridge in Porto.", "invented_name"),
    ],
)
def test_verdicts(fused: str, verdict: str) -> None:
    assert judge(RAW, SYNTHETIC, fused).verdict == verdict


@pytest.mark.parametrize(
    ("raw", "fused", "verdict"),
    [
        ("We love elephants #World #Africa #Join #Animals", "A herd of elephants is seen.", ACCEPTED),
        ("teeth! Health Tips, Slow Food, Natural Herbs, Beauty Secrets", "Two teeth are seen.", ACCEPTED),
        ("fashion of the late 40s to early 50s, 1949", "Fashion from the 1940s to the 1950s is shown.", ACCEPTED),
        ("https://a.example/Anna_Keller_Oslo_1998", "Two teeth are seen.", ACCEPTED),
        ("by Anna Keller, Oslo", "Two teeth.", "knowledge_lost"),
    ],
)
def test_what_is_for_machines_may_be_lost(raw: str, fused: str, verdict: str) -> None:
    assert judge(raw, "two teeth", fused).verdict == verdict


def test_a_source_may_say_sentence_one() -> None:
    assert judge("Sentence 1 sheet", "a sheet of paper", "The sheet shows Sentence 1.").verdict == ACCEPTED


def test_limits_are_obeyed() -> None:
    fused = "A 1999 postcard shows the Old Harbour Bridge in Lisbon."
    assert judge(RAW, SYNTHETIC, fused, Limits(max_invented_numbers=1)).verdict == ACCEPTED


def test_ledger_counts_what_was_kept_and_lost() -> None:
    grounding = ground(RAW, SYNTHETIC, "A postcard of the Harbour Bridge from 1998.")
    assert grounding.kept == ("1998", "bridge", "harbour")
    assert grounding.lost == ("lisbon",)
    assert grounding.recall == 0.75
    assert ground("a cat", "a dog", "A cat.").recall is None


def test_facts() -> None:
    assert numbers("1,000 men on 3/4/1990 at 12:30") == {"1000", "3/4/1990", "12:30"}
    words, names = words_and_names("The Queen's visit to Ghent. Many (Old ones) came, I'm told: Yes.")
    assert names == {"queen", "ghent"}
    assert {"queen", "many", "yes", "i'm"} <= words


def test_hostile_texts_take_no_time() -> None:
    many = " ".join(f"Word{chr(97 + i % 26)}{chr(97 + i // 26 % 26)}{chr(97 + i // 676)}" for i in range(3_000))
    started = time.process_time()
    for fused in (
        many,
        many.upper(),
        many.replace("Word", "Name"),
        "A" * 50_000,
        "#a " * 9_000,
        "(" * 9_000,
        "1," * 9_000,
    ):
        judge(many, "A cat.", fused)
        judge("A cat.", "A cat.", fused)
    assert time.process_time() - started < 10  # guards against quadratic time; it is not a benchmark


@given(st.text(), st.text(), st.text())
def test_judge_never_raises_and_names_a_known_check(raw: str, synthetic: str, fused: str) -> None:
    assert judge(raw, synthetic, fused).verdict in {ACCEPTED, *(check.__name__ for check in CHECKS)}


@pytest.mark.parametrize(
    ("caption", "fault"),
    [
        ("I'm unable to view images directly.", "refusal"),
        ("Sorry! There is no image attached.", "refusal"),
        ("There is no image attached.", "refusal"),
        ("Please provide the image.", "refusal"),
        ("Could you please upload the image?", "refusal"),
        ("As a language model, I cannot see.", "refusal"),
        ("None", "empty"),
        ("N/A", "empty"),
        ("[image]", "empty"),
        ("A dog.<|im_end|>", "residue"),
        ("A sorry sight in Lisbon.", None),
        ("A photo of a dog.", None),
        ("Please do not feed the ducks, says a sign.", None),
        ("Sorry! board game box on a wooden table.", None),
        ("I couldn't care less T-shirt, grey cotton.", None),
        ("I am afraid of the dark, a book cover.", None),
        ("Please share this poster with friends of Lisbon.", None),
        ("Unfortunately, no tickets left, says a sign.", None),
    ],
)
def test_what_is_no_caption_of_a_captioner(caption: str, fault: str | None) -> None:
    assert (fault_of_synthetic(caption) or "").partition(":")[0] == (fault or "")
