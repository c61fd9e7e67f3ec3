"""When not to fuse: a raw caption that says nothing about the image could only harm the fused caption. Pure."""

import re

_WORD = re.compile(r"[^\W\d_]{2,}")
# Words of cameras, shops and content systems. A raw caption of only these and numbers does not describe an image.
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
    """Return why `raw` should not be fused with `synthetic`, or None if it should.

    It should not if `raw` has no words but those of cameras, shops and content systems, and none of them occurs in
    `synthetic`. Numbers are not words here. A raw caption with letters beyond the Latin script is always fused.
    """
    if not raw.isascii() and re.search(r"[^\x00-\u024f\W\d_]", raw):  # not Latin: one letter may be a word
        return None
    words = {word.lower() for word in _WORD.findall(raw)}
    if not words - _EMPTY and not words & ({w.lower() for w in _WORD.findall(synthetic)} - {"of", "the", "in", "on"}):
        return f"the raw caption says nothing about the image: {raw.strip()[:80]}"
    return None
