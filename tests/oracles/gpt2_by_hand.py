"""GPT-2 written out from transformers' weights, in float64, with any mask that is given as a matrix."""

import math

import torch
from torch.nn.functional import gelu, layer_norm


def gpt2_logits(theirs, tokens, mask):
    """Logits float64 [s, vocabulary] of tokens [s] under mask bool [s, s], True where the query sees the key."""
    weights = {name: weight.detach().double() for name, weight in theirs.named_parameters()}
    heads, width = theirs.config.n_head, theirs.config.n_embd // theirs.config.n_head

    def linear(x, name):
        return x @ weights[f"{name}.weight"] + weights[f"{name}.bias"]

    def norm(x, name):
        return layer_norm(x, x.shape[-1:], weights[f"{name}.weight"], weights[f"{name}.bias"], 1e-5)

    table = weights["transformer.wte.weight"]
    hidden = table[tokens] + weights["transformer.wpe.weight"][: len(tokens)]
    for layer in range(theirs.config.n_layer):
        name = f"transformer.h.{layer}"
        parts = linear(norm(hidden, f"{name}.ln_1"), f"{name}.attn.c_attn").chunk(3, dim=-1)
        query, key, value = (part.reshape(len(tokens), heads, width).transpose(0, 1) for part in parts)
        scores = (query @ key.transpose(1, 2)) / math.sqrt(width)
        context = scores.masked_fill(~mask, -torch.inf).softmax(-1) @ value
        hidden = hidden + linear(context.transpose(0, 1).flatten(1), f"{name}.attn.c_proj")
        inner = gelu(linear(norm(hidden, f"{name}.ln_2"), f"{name}.mlp.c_fc"), approximate="tanh")
        hidden = hidden + linear(inner, f"{name}.mlp.c_proj")
    return norm(hidden, "transformer.ln_f") @ table.t()
