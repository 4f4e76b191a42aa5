"""The table of architectures."""

from megatron.basics.registry import Registry

ARCHITECTURES = Registry(
    "--architecture",
    {
        "causal_decoder": "megatron.architectures.causal_decoder:CausalDecoder",
        "prefix_decoder": "megatron.architectures.prefix_decoder:PrefixDecoder",
        "encoder_decoder": "megatron.architectures.encoder_decoder:EncoderDecoder",
    },
)
