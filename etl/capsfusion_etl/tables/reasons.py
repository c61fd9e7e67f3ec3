"""Stages, and the closed list of reasons for which a pair leaves at each of them. Pure."""

STAGES = ("ingest", "fetch", "filter", "dedup", "caption", "fuse")

# stage -> reason -> what it means. `fuse` rejects carry the judge's verdicts when the fallback policy is "drop".
REJECT_REASONS: dict[str, dict[str, str]] = {
    "ingest": {
        "repeated_row": "the source holds this very pair more than once; one of them went on",
        "gone": "the newest version of its source does not hold it",
        "taken_down": "somebody asked to forget it, see takedowns; the detail has the kind of the request",
    },
    "fetch": {
        "bad_url": "no http or https address",
        "refused_address": "the host resolves to a private, loopback or link-local address",
        "unreachable": "no such host, or it did not answer",
        "timeout": "no complete answer in time",
        "http_error": "an HTTP status other than 200; the detail has it",
        "too_large": "more bytes or pixels than allowed",
        "not_an_image": "the bytes are no picture that can be decoded",
        "taken_down": "somebody asked to forget this picture",
        "opted_out": "the answer's X-Robots-Tag forbids training on it; the detail has it",
    },
    "filter": {
        "empty_caption": "no word",
        "too_short": "shorter than min_chars",
        "too_long": "longer than max_chars",
        "file_name": "the alt-text is a file name",
        "boilerplate": "words of the page, not of the picture: `no image available`, `click to enlarge`",
        "symbols": "more of other characters than max_symbols allows",
        "repetition": "one word over and over: more than max_repetition of the words",
        "instructions": "the alt-text talks to the model instead of describing the picture",
        "unsafe": "a word that is not safe for work",
        "stop_word": "a word of the list stop_words",
        "personal": "an e-mail address, a phone or a card number",
        "language": "written in another language than the lake's",
        "too_small": "the shorter side has fewer pixels than min_side",
        "aspect_ratio": "longer than max_aspect_ratio times its width, or the other way round",
        "placeholder": "a picture of a single colour",
        "common_caption": "more than max_images_per_caption pictures have this caption",
        "shared_picture": "more than max_hosts_per_picture hosts show this picture: an icon, or a placeholder",
    },
    "dedup": {
        "duplicate_image": "another pair has the same bytes and a longer caption",
        "duplicate_caption": "another pair has the same address and the same words (lakes without images)",
        "near_duplicate_image": "the picture of an earlier pair, but for a few bits of its perceptual hash",
        "near_duplicate_caption": "the words of an earlier pair, but for a few",
    },
    "caption": {"no_caption": "the captioner had nothing to say", "engine_error": "the captioner failed on this row"},
}
