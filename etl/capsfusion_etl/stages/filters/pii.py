"""Detect personal data in a text: e-mail addresses, phone numbers, card numbers. Findings are quoted only in part."""

import re

_EMAIL = re.compile(r"[\w.+-]+(?:@|\s?\[at\]\s?|\s?\(at\)\s?)[\w-]+(?:\.[\w-]+)*\.[a-z]{2,}", re.IGNORECASE)
_DIGITS = re.compile(r"\d(?:[\s().-]{0,2}\d){8}")  # enough digits for a phone or card number: cheap to check first
_CARD = re.compile(r"\b(?:[3-6]\d{3}(?:[ -]?\d{4}){3}|3[47]\d\d[ -]?\d{6}[ -]?\d{5})\b")


def find_pii(text: str, region: str | None) -> str | None:
    """Return the kind of personal data in `text` and its first characters, or None.

    Args:
        region: ISO 3166 region of phone numbers without a country code; None finds only international numbers.
    """
    if "@" in text or "at]" in text or "at)" in text:
        found = _EMAIL.search(text)
        if found:
            return f"e-mail {found.group()[:3]}…"
    if not _DIGITS.search(text):
        return None
    card = _CARD.search(text)
    if card and _luhn(card.group()):
        return f"card number {card.group()[:4]}…"
    import phonenumbers

    phone = next(iter(phonenumbers.PhoneNumberMatcher(text, region)), None)
    return f"phone number {phone.raw_string[:4]}…" if phone else None


def _luhn(number: str) -> bool:
    """Return whether the check digit of a card number is right (ISO/IEC 7812)."""
    digits = [int(c) for c in reversed(number) if c.isdigit()]
    doubled = [sum(divmod(2 * d, 10)) for d in digits[1::2]]
    return (sum(digits[::2]) + sum(doubled)) % 10 == 0
