"""Text models of transformers on which EasyPruner is measured: tiny ones, random weights."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

_VOCABULARY = 64
_TOKENS, _TARGETS = 16, 6

_SIZES = {
    'hidden_size': 32, 'd_model': 32, 'dim': 32, 'n_embd': 32, 'embedding_size': 32,
    'word_embed_proj_dim': 32, 'intermediate_size': 48, 'hidden_dim': 48, 'ffn_dim': 48,
    'd_ff': 48, 'd_inner': 48, 'n_inner': 48, 'decoder_ffn_dim': 40, 'encoder_ffn_dim': 48,
    'num_hidden_layers': 2, 'num_layers': 2, 'n_layers': 2, 'n_layer': 2, 'encoder_layers': 2,
    'decoder_layers': 2, 'num_decoder_layers': 2, 'num_attention_heads': 4, 'num_heads': 4,
    'n_heads': 4, 'n_head': 4, 'encoder_attention_heads': 4, 'decoder_attention_heads': 4,
    'num_key_value_heads': 2, 'head_dim': 8, 'd_kv': 8, 'rotary_dim': 4, 'd_head': 8,
    'max_position_embeddings': 66, 'n_positions': 66, 'max_seq_len': 66, 'vocab_size': _VOCABULARY,
    'pad_token_id': 0, 'bos_token_id': 1, 'eos_token_id': 2, 'decoder_start_token_id': 2,
    'num_experts': 4, 'num_local_experts': 4, 'n_routed_experts': 4, 'num_experts_per_tok': 2,
    'moe_intermediate_size': 16, 'shared_expert_intermediate_size': 16,
    'state_size': 8, 'time_step_rank': 4, 'hidden_size_per_layer_input': 8,
}  # fmt: skip
"""Setting -> the value that a configuration gets if it has the setting as an integer."""

_LATENT = {
    'num_key_value_heads': 4, 'q_lora_rank': 16, 'kv_lora_rank': 16, 'qk_rope_head_dim': 8,
    'qk_nope_head_dim': 8, 'v_head_dim': 8, 'n_group': 2, 'topk_group': 1, 'n_shared_experts': 1,
    'first_k_dense_replace': 1,
}  # fmt: skip

FAMILIES: dict[str, dict[str, Any]] = {
    # Decoders
    'LlamaForCausalLM': {},
    'MistralForCausalLM': {},
    'Qwen2ForCausalLM': {},
    'Qwen3ForCausalLM': {},
    'GemmaForCausalLM': {},
    'Gemma2ForCausalLM': {},
    'Gemma3ForCausalLM': {},
    'PhiForCausalLM': {},
    'Phi3ForCausalLM': {},
    'Starcoder2ForCausalLM': {},
    'OlmoForCausalLM': {},
    'Olmo2ForCausalLM': {},
    'CohereForCausalLM': {},
    'Cohere2ForCausalLM': {},
    'GraniteForCausalLM': {},
    'StableLmForCausalLM': {},
    'GlmForCausalLM': {},
    'SmolLM3ForCausalLM': {},
    'NemotronForCausalLM': {},
    'GPT2LMHeadModel': {},
    'GPTNeoForCausalLM': {'attention_types': [[['global', 'local'], 1]]},
    'GPTNeoXForCausalLM': {},
    'GPTJForCausalLM': {},
    'GPTBigCodeForCausalLM': {},
    'CodeGenForCausalLM': {},
    'OPTForCausalLM': {},
    'FalconForCausalLM': {'new_decoder_architecture': False, 'multi_query': True},
    'BloomForCausalLM': {},
    'MptForCausalLM': {},
    'XGLMForCausalLM': {'attention_heads': 4},
    'BioGptForCausalLM': {},
    # Experts
    'MixtralForCausalLM': {},
    'Qwen2MoeForCausalLM': {},
    'Qwen3MoeForCausalLM': {},
    'OlmoeForCausalLM': {},
    'DeepseekV2ForCausalLM': _LATENT,
    'DeepseekV3ForCausalLM': _LATENT,
    'GptOssForCausalLM': {},
    # State spaces
    'MambaForCausalLM': {},
    'Mamba2ForCausalLM': {'num_heads': 8, 'head_dim': 8, 'n_groups': 2, 'expand': 2,
                          'chunk_size': 8},
    'FalconMambaForCausalLM': {},
    # Encoders
    'BertForMaskedLM': {},
    'RobertaForMaskedLM': {},
    'DistilBertForMaskedLM': {},
    'ElectraForMaskedLM': {},
    'AlbertForMaskedLM': {},
    'MPNetForMaskedLM': {},
    'DebertaForMaskedLM': {},
    'DebertaV2ForMaskedLM': {},
    'ConvBertForMaskedLM': {},
    'ModernBertForMaskedLM': {},
    'SqueezeBertForMaskedLM': {},
    'FNetForMaskedLM': {},
    'XLNetLMHeadModel': {},
    # Both
    'T5ForConditionalGeneration': {},
    'UMT5ForConditionalGeneration': {},
    'BartForConditionalGeneration': {},
    'PegasusForConditionalGeneration': {},
    'MarianMTModel': {},
    'M2M100ForConditionalGeneration': {},
    'WhisperForConditionalGeneration': {'num_mel_bins': 8, 'max_source_positions': 16,
                                        'max_target_positions': 32},
}  # fmt: skip
"""Class -> its settings beside ``_SIZES``."""


def names() -> Iterator[str]:
    """Yield the classes that the installed version has."""
    import transformers

    yield from (name for name in FAMILIES if hasattr(transformers, name))


def build(name: str) -> tuple[nn.Module, dict[str, Tensor]]:
    """Return a tiny network of a family, and tokens for it."""
    import transformers

    kind: Any = getattr(transformers, name)
    config = kind.config_class(**{**_sizes(kind.config_class()), **FAMILIES[name]})
    config.use_cache = False
    model = kind(config)
    _randomize(model)
    return model, _inputs(config)


def _sizes(usual: Any) -> dict[str, int]:
    """Return the small values of those settings that a configuration has as a number or as None."""
    computed = {n for n in dir(type(usual)) if isinstance(getattr(type(usual), n, None), property)}
    known = usual.to_dict().keys() | usual.attribute_map.keys()
    return {
        name: value
        for name, value in _SIZES.items()
        if name in known - computed and type(getattr(usual, name)) in (int, type(None))
    }


@torch.no_grad()
def _randomize(model: nn.Module) -> None:
    """Make weights large enough for outputs that depend on every channel."""
    for parameter in model.parameters():
        if parameter.dim() > 1:
            parameter.normal_(0, 0.3)


def _inputs(config: Any) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(3, _VOCABULARY, (1, _TOKENS), generator=generator)
    if config.model_type == 'whisper':
        sounds = torch.randn(1, config.num_mel_bins, 2 * _TOKENS, generator=generator)
        return {'input_features': sounds, 'decoder_input_ids': tokens[:, :_TARGETS]}
    if config.is_encoder_decoder:
        return {'input_ids': tokens, 'decoder_input_ids': tokens[:, :_TARGETS]}
    return {'input_ids': tokens}
