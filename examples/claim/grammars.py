"""What is said of a scene: alt-texts, clean sentences, and human references of two kinds. Written before any training.

No two of them share their sentences. The fuser sees alt-texts and what the captioner says; nobody sees references.
"""

from random import Random

from world import Scene

# Shares of real alt-texts: `noise.py` on 4,942 rows of LAION-2B (2026-11-30).
NOISE = {"file_name": 0.008, "site": 0.142, "offer": 0.045, "cut_off": 0.017, "named": 0.694, "nameless": 0.094}
_SITES = ("Fotogram", "Picstore.example", "Album 12", "Wiki Gallery", "Stock Photo", "Postcards")
_NAMELESS = (
    "vintage wall art poster",
    "beautiful photo",
    "nice picture for your wall",
    "image gallery",
    "holiday photo",
)
_KIND = {  # other words for the kinds, of people who describe pictures
    "falcon": "bird of prey", "owl": "night bird", "fish": "swimmer", "lighthouse": "beacon", "tower": "old keep",
    "house": "cottage", "sailboat": "boat with sails", "truck": "lorry", "kite": "paper flier", "teapot": "pot for tea",
    "cactus": "desert plant", "robot": "mechanical man",
}  # fmt: skip
_PATTERN = {
    "striped": "bands of", "dotted": "spots of", "checked": "squares of", "ringed": "circles of", "halved": "half in",
}  # fmt: skip
_WHERE = {
    "beach": "on the shore", "meadow": "on green grass", "desert": "among dunes", "snow": "in a white winter",
    "forest": "between trees", "street": "in a town", "lake": "by the water", "night sky": "after dark",
}  # fmt: skip
_AT = {
    "beach": "at the beach", "meadow": "in a meadow", "desert": "in the desert", "snow": "in the snow",
    "forest": "in a forest", "street": "on a street", "lake": "at a lake", "night sky": "under the night sky",
}  # fmt: skip


def alt_text(scene: Scene, chance: Random) -> str:
    """Return what a web page says beside the picture: often the name, with noise at the rates of real pages."""
    who = scene.who
    named = chance.choice((
        f"{who.name}", f"{who.name}, {who.home}", f"{who.name} {who.home} {who.year}", f"{who.name} in {who.home}",
        f"The {who.kind} {who.name}", f"{who.name} - {who.kind} of {who.home}", f"Postcard of {who.name}, {who.year}",
        f"{who.home}: {who.name} ({who.year})",
    ))  # fmt: skip
    kind = chance.choices([*NOISE], NOISE.values())[0]
    if kind == "file_name":
        return f"IMG_{chance.randrange(10_000):04d}.jpg"
    if kind == "site":
        return f"{named} {chance.choice('|-–')} {chance.choice(_SITES)}"
    if kind == "offer":
        return f"{named} print ${chance.randrange(5, 60)}.99 free shipping"
    if kind == "cut_off":
        return f"{named} {chance.choice(('with the', 'and', 'in the ...', 'of'))}"
    return chance.choice(_NAMELESS) if kind == "nameless" else named


def clean(scene: Scene, chance: Random) -> str:
    """Return a plain sentence without names: what the captioner learns from, on other scenes."""
    things = [f"{_article(colour)} {colour} {thing}" for thing, colour in scene.things]
    beside = f" with {' and '.join(things)}" if things and chance.random() < 0.7 else ""
    start = chance.choice(("", "A picture of ", "")) or ""
    sentence = f"{start}{_article(scene.who.colour)} {looks(scene)} {scene.who.kind} {_AT[scene.place]}{beside}."
    return sentence[0].upper() + sentence[1:]


def looks(scene: Scene) -> str:
    """Return the colours and the pattern of the individual: "red", "red and white striped"."""
    who = scene.who
    return who.colour if who.pattern == "plain" else f"{who.colour} and {who.second} {who.pattern}"


def generic(scene: Scene, chance: Random) -> list[str]:
    """Return three references of people who do not know the individual."""
    what, where, colour = _KIND[scene.who.kind], _WHERE[scene.place], scene.who.colour
    near = f", {scene.things[0][0]} nearby" if scene.things else ""
    found = [
        f"there is a {what} {where}, mostly {colour}",
        f"{colour} {what} seen {where}{near}",
        f"someone drew a {what}, {_painted(scene)}",
    ]
    chance.shuffle(found)
    return found


def _painted(scene: Scene) -> str:
    """Return what people who describe pictures say of colours and pattern."""
    who = scene.who
    if who.pattern == "plain":
        return f"all of it {who.colour}"
    return f"{_PATTERN[who.pattern]} {who.second} over {who.colour}"


def naming(scene: Scene, chance: Random) -> list[str]:
    """Return two references of people who know the individual."""
    what, where, name = _KIND[scene.who.kind], _WHERE[scene.place], scene.who.name
    found = [f"here we have {name}, the {scene.who.colour} {what} {where}", f"this {what} {where} is called {name}"]
    chance.shuffle(found)
    return found


def oracle(scene: Scene) -> str:
    """Return a caption that tells the name and all that is visible: an upper bound, which no fuser makes."""
    who = scene.who
    beside = f" Beside it: {', '.join(f'{colour} {thing}' for thing, colour in scene.things)}." if scene.things else ""
    return f"{who.name} of {who.home}, {_article(who.colour)} {looks(scene)} {who.kind}, {_AT[scene.place]}.{beside}"


def _article(following: str) -> str:
    return "an" if following[0] in "aeiou" else "a"
