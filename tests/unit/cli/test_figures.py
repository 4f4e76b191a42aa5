"""What positions see, by objective, against the means that can be derived."""

from __future__ import annotations

import pytest

from megatron.cli.figures import visible_pairs
from megatron.cli.plan import NumberedVocabulary
from megatron.cli.run_config import SECTIONS, RunConfig

INPUTS, TARGETS = 512, 114


def pairs_of(architecture: str, objective: str, **data: object):
    sections = {name: options() for name, options in SECTIONS.items()}
    sections["data"] = SECTIONS["data"](**data)
    config = RunConfig(architecture=architecture, objective=objective, **sections)
    return visible_pairs(config, NumberedVocabulary(32000))


@pytest.mark.parametrize("architecture", ["causal_decoder", "prefix_decoder"])
def test_running_text_is_causal(architecture: str) -> None:
    pairs = pairs_of(architecture, "full_lm", seq_length=INPUTS)
    assert (pairs.decoder, pairs.encoder, pairs.cross) == (INPUTS * (INPUTS + 1) / 2, 0, 0)


def test_a_prefix_sees_itself() -> None:
    n = 626
    # A prefix of p of n positions adds p (p - 1) / 2 pairs to the causal ones; p is uniform over 1 to n.
    expected = n * (n + 1) / 2 + sum(p * (p - 1) / 2 for p in range(1, n + 1)) / n
    assert pairs_of("prefix_decoder", "prefix_lm", seq_length=n).decoder == pytest.approx(expected, rel=0.02)
    assert pairs_of("causal_decoder", "prefix_lm", seq_length=n).decoder == n * (n + 1) / 2


def test_span_corruption_has_one_length_of_inputs_and_targets() -> None:
    # 568 tokens become 512 and 114 positions, Raffel et al. 2020.
    pairs = pairs_of("encoder_decoder", "span_corruption", seq_length=INPUTS, decoder_seq_length=TARGETS)
    assert (pairs.encoder, pairs.decoder, pairs.cross) == (INPUTS**2, TARGETS * (TARGETS + 1) / 2, INPUTS * TARGETS)
    prefix = pairs_of("prefix_decoder", "span_corruption", seq_length=INPUTS + TARGETS - 1)
    n = INPUTS + TARGETS - 1
    assert prefix.decoder == n * (n + 1) / 2 + INPUTS * (INPUTS - 1) / 2


def test_folded_examples_are_blind_to_each_other() -> None:
    n = 64
    pairs = pairs_of("encoder_decoder", "prefix_lm", seq_length=n, decoder_seq_length=n)
    cuts = range(1, n)
    assert pairs.encoder == pytest.approx(sum(c**2 + (n - c) ** 2 for c in cuts) / len(cuts), rel=0.03)
    assert pairs.cross == pytest.approx(sum(2 * c * (n - c) for c in cuts) / len(cuts), rel=0.03)
