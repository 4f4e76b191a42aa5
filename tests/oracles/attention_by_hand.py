"""Attention one query at a time in numpy: slow, obvious, and written without looking at any backend."""

from __future__ import annotations

import numpy as np


def attention_by_hand(query, key, value, intervals, scale, distance_bias=None):
    """float64 [b, h, s_q, d] from arrays [b, h, s_q, d], [b, g, s_k, d] and intervals [b, s_q, 2]."""
    batch, num_heads, num_queries, _ = query.shape
    heads_per_group = num_heads // key.shape[1]
    result = np.zeros(query.shape)
    for b in range(batch):
        for h in range(num_heads):
            for q in range(num_queries):
                weights, total = [], 0.0
                visible = range(int(intervals[b, q, 0]), int(intervals[b, q, 1]))
                for k in visible:
                    score = scale * np.dot(query[b, h, q], key[b, h // heads_per_group, k])
                    if distance_bias is not None:
                        score += distance_bias[h, (k - q) + (num_queries - 1)]
                    weights.append(np.exp(score))
                    total += weights[-1]
                for k, weight in zip(visible, weights, strict=True):
                    result[b, h, q] += weight / total * value[b, h // heads_per_group, k]
    return result
