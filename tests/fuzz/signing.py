"""Who may be believed, written from Zocdoc's documentation alone: no code of the verifier, not even its HMAC."""

from __future__ import annotations

import hashlib
from functools import cache
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

_ALPHABET: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
_PAIRS: Final = [first + second for first in _ALPHABET for second in _ALPHABET]
_INNER: Final = bytes(byte ^ 0x36 for byte in range(256))
_OUTER: Final = bytes(byte ^ 0x5C for byte in range(256))
_DIGITS: Final = frozenset("0123456789")


def verdict(pairs: Iterable[tuple[str, str]], body: bytes, keys: Iterable[str], now: float) -> str:
    """Say accepted, stale, future, refused, or misconfigured."""
    secrets = [bytes_of(key) for key in keys]
    if not secrets or None in secrets:
        return "misconfigured"
    found: dict[str, str] = {}
    for name, value in pairs:
        known = _plain(name)
        if known in found:
            return "refused"
        found[known] = value if known.startswith("webhook-") else ""
    listed, seconds = found.get("webhook-signature", ""), found.get("webhook-timestamp", "").strip("\t ")
    entries = [entry for entry in (each.strip("\t ") for each in listed.split(";")) if entry]
    is_sound = len(listed) <= 4096 and len(entries) <= 16 and all(each <= "\x7f" and each != "," for each in listed)
    if not is_sound or not all(entry.find(":") > 0 for entry in entries) or not 1 <= len(seconds) <= 11:
        return "refused"
    if not _DIGITS.issuperset(seconds):
        return "refused"
    right = {"v1:" + base64_of(mac(secret or b"", seconds.encode() + b"." + body)) for secret in secrets}
    if right.isdisjoint(entries):
        return "refused"
    return "accepted" if abs(now - int(seconds)) <= 300 else "stale" if now > int(seconds) else "future"


def mac(secret: bytes, message: bytes) -> bytes:
    """RFC 2104 over SHA-256."""
    block = (hashlib.sha256(secret).digest() if len(secret) > 64 else secret).ljust(64, b"\0")
    inner = hashlib.sha256(block.translate(_INNER) + message).digest()
    return hashlib.sha256(block.translate(_OUTER) + inner).digest()


def base64_of(data: bytes) -> str:
    """RFC 4648, section 4."""
    whole, letters = data + bytes(-len(data) % 3), ""
    for at in range(0, len(whole), 3):
        three = whole[at] << 16 | whole[at + 1] << 8 | whole[at + 2]
        letters += _PAIRS[three >> 12] + _PAIRS[three & 0xFFF]
    padding = -len(data) % 3
    return letters[: len(letters) - padding] + "=" * padding


@cache
def bytes_of(text: str) -> bytes | None:
    """Decode a key, whatever its last bits are; None for what is empty or no base64."""
    letters = text.rstrip("=")
    if not letters or len(text) % 4 or len(text) - len(letters) > 2 or not set(letters) <= set(_ALPHABET):
        return None
    bits = "".join(f"{_ALPHABET.index(letter):06b}" for letter in letters)
    return bytes(int(bits[at : at + 8], 2) for at in range(0, len(bits) - 7, 8))


def _plain(name: str) -> str:
    return "".join(chr(ord(letter) + 32) if "A" <= letter <= "Z" else letter for letter in name)
