"""The choice of the next token from its logits."""

from __future__ import annotations

import torch
from torch import Tensor


def choose_token(
    logits: Tensor, generator: torch.Generator, *, temperature: float, top_k: int | None, top_p: float
) -> int:
    """One token from logits [vocabulary], floating, on the host.

    Temperature 0 takes the likeliest token and draws nothing. Else the distribution is softmax(logits / temperature),
    cut to the `top_k` likeliest tokens (Fan et al. 2018, section 5.4), then to the fewest likeliest ones whose
    probability reaches `top_p` (Holtzman et al. 2020, section 3.1), and renormalised.
    """
    if temperature == 0:
        return int(logits.argmax())
    scores = logits.double()
    scores = (scores - scores.max()) / temperature  # at most 0: the smallest temperatures must not overflow
    # The Gumbel-max trick gives every token of the vocabulary its own noise. The rounding of another layout then
    # changes the choice only where the two best are equal to rounding; a walk along cumulated probabilities would
    # change it wherever two neighbours swap places.
    noise = -torch.empty_like(scores).exponential_(generator=generator).log()
    if top_k is None and top_p == 1:
        return int((scores + noise).argmax())
    kept = scores.argsort(descending=True, stable=True)[:top_k]
    probabilities = scores[kept].softmax(0)
    likelier = probabilities.cumsum(0) - probabilities
    kept = kept[likelier < top_p]
    return int(kept[(scores + noise)[kept].argmax()])
