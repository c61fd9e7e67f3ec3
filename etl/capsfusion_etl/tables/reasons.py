"""The stages, and the closed list of reasons for which each of them rejects a pair. Pure."""

STAGES = ("ingest", "fetch", "filter", "dedup", "caption", "fuse")

# stage -> reason -> meaning. With the fallback "drop", `fuse` rejects pairs, too; its reasons are the judge's verdicts.
REJECT_REASONS: dict[str, dict[str, str]] = {
    "ingest": {
        "malformed_row": "the record cannot be read: an open quote, other fields than the header, no JSON; see detail",
        "repeated_row": "the source contains the same pair more than once; one copy survives",
        "gone": "the newest version of the source does not contain the pair",
        "taken_down": "a takedown request names the pair; the detail is the kind of the request, see takedowns",
    },
    "fetch": {
        "bad_url": "not a valid http or https URL",
        "refused_address": "the host is not on the public internet: a private, loopback or link-local IP address",
        "unreachable": "the host does not exist or does not answer",
        "timeout": "no complete response in time",
        "http_error": "an HTTP status other than 200, or too many redirects; the detail says which",
        "too_large": "more bytes or pixels than allowed",
        "not_an_image": "the bytes cannot be decoded as an image",
        "taken_down": "a takedown request names the image",
        "opted_out": "the X-Robots-Tag of the response, which is the detail, forbids training on the image",
    },
    "filter": {
        "empty_caption": "the caption has no words",
        "too_short": "the caption is shorter than min_chars",
        "too_long": "the caption is longer than max_chars",
        "file_name": "the caption is a file name",
        "boilerplate": "the caption describes the page, not the image: `no image available`, `click to enlarge`",
        "symbols": "more than max_symbols of the characters are neither letters, digits nor spaces",
        "repetition": "one word makes up more than max_repetition of the words",
        "instructions": "the caption addresses a model instead of describing the image (prompt injection)",
        "unsafe": "the caption contains a word that is not safe for work",
        "stop_word": "the caption contains a word of the list stop_words",
        "personal": "the caption contains an e-mail address, a phone number or a card number",
        "language": "the caption is not in the language that filters.language names",
        "too_small": "the shorter side of the image has fewer pixels than min_side",
        "aspect_ratio": "the longer side of the image exceeds max_aspect_ratio times the shorter side",
        "placeholder": "the image has nearly a single colour: its contrast is below min_contrast",
        "common_caption": "more than max_images_per_caption images have this caption",
        "shared_picture": "more than max_hosts_per_picture hosts serve this image: an icon or a placeholder",
    },
    "dedup": {
        "duplicate_image": "another pair has the same image bytes and a caption that is at least as long",
        "duplicate_caption": "another pair has the same URL and the same words (lakes without images)",
        "near_duplicate_image": "an earlier pair has nearly the same image: few bits of the perceptual hash differ",
        "near_duplicate_caption": "an earlier pair has nearly the same caption",
    },
    "caption": {
        "no_caption": "the captioner wrote no caption",
        "bad_caption": "it wrote a refusal, words of the prompt, a URL or the same again; the detail says which",
        "engine_error": "the captioner failed on this row",
    },
}
