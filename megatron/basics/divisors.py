"""The nearest size that divides another: what an error message proposes."""

from __future__ import annotations

SEARCH_RANGE = 10_000


def nearest_divisor(number: int, wish: int) -> int:
    """The divisor of `number` that is closest to `wish`; the smaller of two equally close ones.

    nearest_divisor(768, 11) == 12. The search goes outward from `wish` and ends SEARCH_RANGE away, where the answer is
    1, which always fits: an absurd size on a command line is answered as fast as a likely one.
    """
    wish = min(max(wish, 1), number)
    for distance in range(SEARCH_RANGE):
        for candidate in (wish - distance, wish + distance):
            if 1 <= candidate <= number and number % candidate == 0:
                return candidate
    return 1
