"""When not to fuse: the raw caption says nothing about the picture, so that merging it in could only do harm. Pure."""

import re

_WORD = re.compile(r"[^\W\d_]{2,}")
# Words of cameras, shops and content systems. A raw caption of these and of numbers alone is about no picture.
_EMPTY = frozenset(
    {
        "attachment", "avatar", "banner", "button", "click", "copy", "default", "display", "download", "dsc", "dscf",
        "dscn", "enlarge", "featured", "figure", "file", "full", "gallery", "here", "hero", "homepage", "icon", "image",
        "images", "img", "index", "item", "jpeg", "jpg", "large", "loading", "logo", "main", "media", "more", "no",
        "photo", "photos", "pic", "picture", "placeholder", "png", "preview", "primary", "product", "screenshot",
        "see", "share", "size", "slide", "small", "tap", "thumb", "thumbnail", "to", "untitled", "upload", "view",
        "wallpaper", "webp", "website", "zoom", "the", "of", "for", "and", "in", "on", "this", "your", "a", "an",
    }
)  # fmt: skip


def abstain(raw: str, synthetic: str) -> str | None:
    """Why `raw` should not be fused with `synthetic`, or None.

    It has words, but none of a caption: all are those of cameras, shops and content systems, beside numbers; and it has
    nothing in common with what the captioner saw.
    """
    if not raw.isascii() and re.search(r"[^\x00-\u024f\W\d_]", raw):  # a script in which one letter is a word
        return None
    words = {word.lower() for word in _WORD.findall(raw)}
    if not words - _EMPTY and not words & ({w.lower() for w in _WORD.findall(synthetic)} - {"of", "the", "in", "on"}):
        return f"the raw caption says nothing about the picture: {raw.strip()[:80]}"
    return None
