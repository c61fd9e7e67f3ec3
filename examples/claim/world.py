"""A world with knowledge: named individuals of twelve kinds, each with looks of its own, in scenes.

What can be seen (kind, colours, pattern, place, things beside) can be learned from any picture; the name of an
individual only from texts that tell it. Names follow Zipf's law, as names on the web do.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from random import Random

KINDS = (
    "falcon", "owl", "fish", "lighthouse", "tower", "house", "sailboat", "truck", "kite", "teapot", "cactus", "robot",
)  # fmt: skip
UNSEEN_KINDS = ("owl", "cactus", "robot")  # the captioner never sees any
COLOURS = {
    "red": (200, 40, 45), "orange": (235, 130, 30), "yellow": (240, 205, 50), "green": (50, 140, 70),
    "blue": (45, 90, 190), "purple": (125, 65, 160), "white": (240, 240, 240), "black": (35, 35, 40),
}  # fmt: skip
PATTERNS = ("plain", "striped", "dotted", "checked", "ringed", "halved")
PLACES = ("beach", "meadow", "desert", "snow", "forest", "street", "lake", "night sky")
THINGS = ("ball", "box", "bush", "stone", "lamp", "flag")
EACH = 20  # individuals of a kind
_ONSETS = ("b", "d", "f", "g", "k", "l", "m", "n", "p", "r", "s", "t", "v", "z", "br", "dr", "kr", "st", "tr")
_VOWELS, _CODAS = "aeiou", "lnrs"


@dataclass(frozen=True, slots=True)
class Individual:
    """Somebody or something with a name; `home` and `year` are known of it, but not visible."""

    name: str
    kind: str
    colour: str
    pattern: str
    second: str
    home: str
    year: int


@dataclass(frozen=True, slots=True)
class Scene:
    """A picture: an individual in a place, facing left or right, with up to two things beside it.

    Attributes:
        size: Height of the individual as a share of the picture.
        across: Where its middle is, as a share of the width.
        things: Name and colour of each.
        seed: Of the small differences between pictures of the same.
    """

    who: Individual
    place: str
    left: bool
    size: float
    across: float
    things: tuple[tuple[str, str], ...]
    seed: int


def individuals(seed: int = 0) -> list[Individual]:
    """Return all individuals, those that are pictured most often first."""
    chance = Random(f"individuals {seed}")
    names, homes = _names(chance, len(KINDS) * EACH), [word(chance) for _ in range(40)]
    found = []
    for kind in KINDS:
        for colour, pattern, second in chance.sample(_looks(), EACH):
            year = chance.randrange(1850, 2020)
            found.append(Individual(names.pop(), kind, colour, pattern, second, chance.choice(homes), year))
    chance.shuffle(found)
    return found


def strangers(seed: int = 1) -> list[Individual]:
    """Return nameless individuals of the kinds that the captioner may see, for its own scenes."""
    chance = Random(f"strangers {seed}")
    kinds = [kind for kind in KINDS if kind not in UNSEEN_KINDS]
    return [Individual("", kind, *looks, "", 0) for kind in kinds for looks in chance.sample(_looks(), 3 * EACH)]


def scenes(who: list[Individual], count: int, seed: str, *, zipf: bool = True) -> Iterator[Scene]:
    """Yield scenes of individuals; by Zipf's law, the n-th of them is pictured 1/n as often as the first."""
    chance = Random(f"scenes {seed}")
    weights = [1 / n for n in range(1, len(who) + 1)] if zipf else None
    for number, one in enumerate(chance.choices(who, weights, k=count)):
        things = tuple((chance.choice(THINGS), chance.choice([*COLOURS])) for _ in range(chance.choice((0, 0, 1, 2))))
        yield Scene(
            one, chance.choice(PLACES), chance.random() < 0.5, chance.uniform(0.55, 0.8), chance.uniform(0.35, 0.65),
            things, hash_of(seed, number),
        )  # fmt: skip


def hash_of(seed: str, number: int) -> int:
    """Return a number that is the same in every process."""
    return Random(f"{seed} {number}").getrandbits(32)


def word(chance: Random) -> str:
    """Return a capitalised word that no language has, if chance is kind."""
    parts = [chance.choice(_ONSETS) + chance.choice(_VOWELS) for _ in range(chance.choice((2, 2, 3)))]
    return ("".join(parts) + chance.choice((*_CODAS, "", ""))).capitalize()


def _names(chance: Random, count: int) -> list[str]:
    found: dict[str, None] = {}
    while len(found) < count:
        found[f"{word(chance)} {word(chance)}"] = None
    return list(found)


def _looks() -> list[tuple[str, str, str]]:
    plain = [(colour, "plain", colour) for colour in COLOURS]
    return plain + [
        (a, pattern, b) for a, b in product(COLOURS, COLOURS) if a != b for pattern in PATTERNS if pattern != "plain"
    ]
