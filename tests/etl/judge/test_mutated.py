"""Whatever stands in a caption, no border raises: 20,000 mutated captions through judge, filters and decoding."""

import random

from capsfusion_etl.engines.generation.titles import title_of
from capsfusion_etl.engines.generation.vocabulary import sayable
from capsfusion_etl.judge import fault_of_synthetic, judge
from capsfusion_etl.judge.abstain import abstain
from capsfusion_etl.judge.lexicon import free_words
from capsfusion_etl.stages.filters.rules import FilterConfig, Pair, first_rejection

TEXTS = [
    "Old Harbour Bridge Lisbon 1998 postcard | eBay",
    "Espresso in a white cup, only $3.50!",
    "2019年，一只狗在北京的公园里奔跑。",
    "ताजमहल के सामने एक परिवार खड़ा है।",
    "วัดพระแก้วในกรุงเทพมหานคร",
    'He said: "Lot 24", see https://a.example/x?y=1&amp;z <b>now</b>',
]
ODD = [
    "\x00", "\ud83d", "\u202e", "\u2028", "%s", "{0}", "<raw caption>", "'" * 9, "(" * 40, "1" * 400, "\u0301",
    "\u00bd",
    "\u2167", "\U0001f469\u200d\U0001f467",
]  # fmt: skip


def test_no_mutated_caption_raises() -> None:
    dice, config = random.Random(7), FilterConfig()
    for _ in range(20_000):
        raw, synthetic, fused = (_mutated(dice) for _ in range(3))
        assert judge(raw, synthetic, fused).verdict
        fault_of_synthetic(fused)
        abstain(raw, synthetic)
        first_rejection(Pair(raw, 640, 480, 50.0, config))
        if dice.random() < 0.05:  # slower
            assert sayable(raw, synthetic, free=free_words())
            title_of(raw)


def _mutated(dice: random.Random) -> str:
    text = dice.choice(TEXTS)
    for _ in range(dice.randrange(4)):
        at = dice.randrange(len(text) + 1)
        text = text[:at] + dice.choice([*ODD, *dice.choice(TEXTS)]) + text[at + dice.randrange(6) :]
    return text
