"""How positions enter attention: rotary angles, ALiBi slopes, T5's relative buckets.

Learned positions are added to the embedding and need nothing here. ALiBi and T5's bias depend on the distance between
key and query alone, so they travel as one value for each head and distance, [heads, s_q + s_k - 1], entry
(k - q) + (s_q - 1), and never as an [s, s] matrix.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def rotary_angles(position_ids: Tensor, width: int, base: float) -> Tensor:
    """Angles of rotary embeddings, float32 [s, b, 1, width], from positions int64 [b, s].

    Pairs are (i, i + width / 2), as GPT-NeoX and Llama arrange them. Source: Su et al. 2021, section 3.2.
    """
    exponents = torch.arange(0, width, 2, dtype=torch.float32, device=position_ids.device) / width
    angles = position_ids.t().float().unsqueeze(-1) / base**exponents
    return torch.cat([angles, angles], dim=-1).unsqueeze(2)


def alibi_slopes(num_heads: int) -> Tensor:
    """Slopes of ALiBi, float32 [num_heads], positive. Source: Press et al. 2022, section 3.

    A power of two n has 2^(-8/n), 2^(-16/n), ...; other counts take those of the next lower power of two and fill up
    with every second slope of the next higher one, as the authors' code does.
    """

    def geometric(n: int) -> list[float]:
        return [2.0 ** (-8.0 * (i + 1) / n) for i in range(n)]

    lower = 2 ** math.floor(math.log2(num_heads))
    slopes = geometric(lower) + geometric(2 * lower)[0::2][: num_heads - lower]
    return torch.tensor(slopes, dtype=torch.float32)


def distances(num_queries: int, num_keys: int, device: torch.device) -> Tensor:
    """k - q for each entry of a distance bias, int64 [s_q + s_k - 1], where the queries are the last of the keys.

    From -(s_k - 1), the last query and the first key, to s_q - 1, the first query and the last key.
    """
    return torch.arange(1 - num_keys, num_queries, device=device)


def relative_buckets(distance: Tensor, num_buckets: int, max_distance: int, *, bidirectional: bool) -> Tensor:
    """T5's bucket of each distance k - q, int64, same shape.

    Half of the buckets hold one distance each, the others grow logarithmically up to `max_distance`. Bidirectional
    buckets keep one half for keys that lie behind the query and one for those ahead; unidirectional ones put every key
    ahead into bucket 0. Source: Raffel et al. 2020, section 2.1; verified against transformers' T5.
    """
    offset = torch.zeros_like(distance)
    if bidirectional:
        num_buckets //= 2
        offset = (distance > 0).long() * num_buckets
        behind = distance.abs()
    else:
        behind = (-distance).clamp(min=0)
    num_exact = num_buckets // 2
    # float32 throughout: T5 checkpoints depend on where this rounding puts the borders.
    growth = torch.log(behind.clamp(min=1).float() / num_exact) / math.log(max_distance / num_exact)
    coarse = num_exact + (growth * (num_buckets - num_exact)).long()
    return offset + torch.where(behind < num_exact, behind, coarse.clamp(max=num_buckets - 1))
