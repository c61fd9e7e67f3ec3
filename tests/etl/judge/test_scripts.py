"""Test words and ends of sentences in scripts other than Latin, in the judge and in the filters."""

import pytest
from capsfusion_etl.judge import judge
from capsfusion_etl.judge.checks import Row, cut_off, repetition
from capsfusion_etl.judge.grounding import facts_of, words_and_names
from capsfusion_etl.judge.scripts import WORD, ends_sentence
from capsfusion_etl.stages.filters.rules import FILTERS, FilterConfig, Pair

SENTENCES = {
    "zh": "2019年，一只狗在北京的公园里奔跑。",
    "ja": "京都の金閣寺の前に立つ女性（1998年）。",
    "ja quoted": "看板には「いらっしゃいませ。」",
    "hi": "ताजमहल के सामने एक परिवार खड़ा है।",
    "ur": "لاہور میں بادشاہی مسجد کے سامنے لوگ۔",
    "ar": "هل هذا هو المسجد الأموي في دمشق؟",
    "my": "ရွှေတိဂုံဘုရားရှေ့တွင် လူများရှိသည်။",
    "km": "ប្រាសាទអង្គរវត្តនៅពេលថ្ងៃរះ។",
    "am": "በአዲስ አበባ የሚገኝ ቤተ ክርስቲያን።",
    "hy": "Երեւանի կենտրոնում գտնվող հրապարակը։",
    "th": "วัดพระแก้วในกรุงเทพมหานคร",
    "lo": "ວັດພູໃນແຂວງຈຳປາສັກ",
    "th year": "สะพานในลิสบอน ปี 1998",
    "th latin": "สะพานใน Lisbon",
    "en emoji": "A bridge is in Porto. 🌉",
    "el": "Πού βρίσκεται ο Παρθενώνας\u037e",
    "en credit": "A bridge is in Porto. (Photo: Ana)",
}


@pytest.mark.parametrize("text", SENTENCES.values(), ids=SENTENCES)
def test_a_whole_sentence_is_accepted(text: str) -> None:
    assert ends_sentence(text)
    assert judge(text, "", text).verdict == "accepted"


@pytest.mark.parametrize(
    "name",
    [
        name
        for name in SENTENCES
        if name not in ("th", "lo", "th year", "th latin", "en credit", "en emoji", "ja quoted")
    ],
)
def test_a_sentence_without_its_end_is_cut_off(name: str) -> None:
    text = SENTENCES[name][:-1]
    assert cut_off(Row.of("", "", text)) == text[-30:]


@pytest.mark.parametrize("text", SENTENCES.values(), ids=SENTENCES)
def test_no_filter_takes_vowel_signs_for_symbols(text: str) -> None:
    pair = Pair(text, 300, 200, 50.0, FilterConfig(language=None))
    assert [check.__name__ for check in FILTERS if check(pair)] == []


def test_vowel_signs_belong_to_their_word() -> None:
    assert WORD.findall("नमस्ते दुनिया") == ["नमस्ते", "दुनिया"]
    assert WORD.findall("cafe\u0301 au lait, ok_2!") == ["cafe\u0301", "au", "lait", "ok_2"]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("一只狗在公园里，一只狗在公园里，一只狗在公园里。", "一只狗在公园"),
        ("สุนัขในสวนสุนัขในสวนสุนัขในสวน", "สุนัขในสวน"),
        ("一只红色的狗和一只黑色的猫在北京的公园里玩耍。", None),
        ("a dog and a dog and a dog and a dog", "a dog and"),
    ],
)
def test_repetition_without_spaces(text: str, found: str | None) -> None:
    seen = repetition(Row.of("", "", text))
    assert (seen is None) == (found is None)
    assert seen is None or seen in text.lower()


@pytest.mark.parametrize("text", ["Visit the ประเทศไทย temple and", "A man named สมชาย stands near", "ภาพของ (cut"])
def test_a_thai_name_does_not_end_a_sentence(text: str) -> None:
    assert not ends_sentence(text)


def test_digits_of_other_scripts_are_numbers() -> None:
    assert judge("جسر لشبونة ١٩٩٨", "A bridge is over water.", "A bridge is over water in 1998.").verdict == "accepted"


def test_names_keep_their_marks() -> None:
    assert facts_of("la ville de Zu\u0308rich") == ["Zu\u0308rich"]
    assert words_and_names("नमस्ते दुनिया")[0] == {"नमस्ते", "दुनिया"}
