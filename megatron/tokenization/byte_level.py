"""GPT-2's alphabet of 256 printable characters, one for each byte (Radford et al. 2019, section 2.2)."""

from __future__ import annotations

from functools import cache


@cache
def byte_of_character() -> dict[str, int]:
    """The byte that each character of the alphabet stands for.

    Bytes that are printable in Latin-1 stand for themselves, the other 68 take the code points from 256 on.
    """
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + rank): byte for rank, byte in enumerate(others)}


def text_of_byte_level(piece: str) -> str:
    """`Ġthe` -> ` the`. Parts of a character become U+FFFD; a piece outside the alphabet is returned as it is."""
    alphabet = byte_of_character()
    if not all(character in alphabet for character in piece):
        return piece
    return bytes(alphabet[character] for character in piece).decode("utf-8", "replace")
