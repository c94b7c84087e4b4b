"""Tiny networks of many families of transformers: cut, compared, saved, loaded, generating."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import easypruner
from easypruner import Limits
from easypruner.graph import ChannelGraph, Masks
from easypruner.graph.pretrained.saving import saver_of
from easypruner.strategies.budgets.ranking import keep_best

transformers = pytest.importorskip('transformers', minversion='5.0')
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings('ignore')]

SIZES = {
    'hidden_size': 32, 'intermediate_size': 48, 'num_hidden_layers': 2, 'num_attention_heads': 4,
}  # fmt: skip
WORDS = {'vocab_size': 60, 'max_position_embeddings': 64, 'pad_token_id': 0}
ENCODER = {**SIZES, **WORDS}
PLAIN = {**ENCODER, 'bos_token_id': 1, 'eos_token_id': 2}
TEXT = {**PLAIN, 'num_key_value_heads': 2}
GPT = {'n_embd': 32, 'n_layer': 2, 'n_head': 4, 'vocab_size': 60, 'n_positions': 64}
EXPERTS = {**TEXT, 'num_experts_per_tok': 2}
BOTH = {
    'd_model': 32, 'encoder_layers': 2, 'decoder_layers': 2, 'encoder_attention_heads': 4,
    'decoder_attention_heads': 4, 'encoder_ffn_dim': 48, 'decoder_ffn_dim': 40, 'vocab_size': 60,
    'pad_token_id': 0, 'bos_token_id': 1, 'eos_token_id': 2, 'decoder_start_token_id': 2,
}  # fmt: skip
T5 = {
    'd_model': 32, 'd_kv': 8, 'd_ff': 48, 'num_layers': 2, 'num_heads': 4, 'vocab_size': 60,
    'decoder_start_token_id': 0, 'pad_token_id': 0, 'eos_token_id': 1,
}  # fmt: skip
IMAGE = {**SIZES, 'image_size': 32, 'patch_size': 8}
MLA = {
    **EXPERTS, 'num_key_value_heads': 4, 'q_lora_rank': 16, 'kv_lora_rank': 16,
    'qk_rope_head_dim': 8, 'qk_nope_head_dim': 8, 'v_head_dim': 8, 'n_routed_experts': 4,
    'moe_intermediate_size': 16, 'n_shared_experts': 1, 'n_group': 2, 'topk_group': 1,
    'first_k_dense_replace': 1,
}  # fmt: skip
FALCON = {
    'hidden_size': 32, 'num_hidden_layers': 2, 'num_attention_heads': 4, 'vocab_size': 60,
}  # fmt: skip
WIDTH = {'head_dim': 8}

CONFIG, RECORD = True, False
"""Whether a config says the half of everything."""

FAMILIES: dict[str, tuple[str, dict[str, Any], bool]] = {
    'Llama': ('LlamaForCausalLM', TEXT, CONFIG),
    'Mistral': ('MistralForCausalLM', TEXT, CONFIG),
    'Qwen2': ('Qwen2ForCausalLM', TEXT, CONFIG),
    'Qwen3': ('Qwen3ForCausalLM', {**TEXT, **WIDTH}, CONFIG),
    'Gemma2': ('Gemma2ForCausalLM', {**TEXT, **WIDTH}, RECORD),
    'Gemma3Text': ('Gemma3ForCausalLM', {**TEXT, **WIDTH}, RECORD),
    'Mixtral': ('MixtralForCausalLM', {**EXPERTS, 'num_local_experts': 4}, CONFIG),
    'Phi': ('PhiForCausalLM', TEXT, CONFIG),
    'Phi3': ('Phi3ForCausalLM', TEXT, CONFIG),
    'Starcoder2': ('Starcoder2ForCausalLM', TEXT, CONFIG),
    'Olmo2': ('Olmo2ForCausalLM', TEXT, CONFIG),
    'Cohere': ('CohereForCausalLM', TEXT, CONFIG),
    'GPT2': ('GPT2LMHeadModel', GPT, CONFIG),
    'GPTNeoX': ('GPTNeoXForCausalLM', PLAIN, CONFIG),
    'OPT': ('OPTForCausalLM', {**PLAIN, 'ffn_dim': 48, 'word_embed_proj_dim': 32}, CONFIG),
    'Falcon': ('FalconForCausalLM', {**FALCON, 'new_decoder_architecture': True, 'num_kv_heads': 2},
               CONFIG),
    'Bloom': ('BloomForCausalLM', {**FALCON, 'n_layer': 2, 'n_head': 4}, RECORD),
    'DeepseekV3': ('DeepseekV3ForCausalLM', MLA, CONFIG),
    'Mamba': ('MambaForCausalLM', {**SIZES, 'vocab_size': 60, 'state_size': 8}, CONFIG),
    'Bert': ('BertForMaskedLM', ENCODER, CONFIG),
    'Roberta': ('RobertaForMaskedLM', {**PLAIN, 'max_position_embeddings': 66}, CONFIG),
    'DistilBert': ('DistilBertForMaskedLM',
                   {**WORDS, 'dim': 32, 'hidden_dim': 48, 'n_layers': 2, 'n_heads': 4}, CONFIG),
    'T5': ('T5ForConditionalGeneration', T5, CONFIG),
    'Bart': ('BartForConditionalGeneration', {**BOTH, 'max_position_embeddings': 64}, RECORD),
    'Whisper': ('WhisperForConditionalGeneration',
                {**BOTH, 'num_mel_bins': 8, 'max_source_positions': 16, 'max_target_positions': 32,
                 'suppress_tokens': None, 'begin_suppress_tokens': None}, RECORD),
    'CLIP': ('CLIPModel', {'text_config': PLAIN, 'vision_config': IMAGE, 'projection_dim': 16},
             RECORD),
    'ViT': ('ViTForImageClassification', {**IMAGE, 'num_labels': 5}, CONFIG),
    'Segformer': ('SegformerForSemanticSegmentation',
                  {'hidden_sizes': [8, 16, 24, 32], 'depths': [1, 1, 1, 1], 'num_labels': 5,
                   'num_attention_heads': [1, 2, 3, 4], 'decoder_hidden_size': 16}, RECORD),
    'Swin': ('SwinForImageClassification',
             {'image_size': 32, 'patch_size': 2, 'embed_dim': 16, 'depths': [2, 2],
              'num_heads': [2, 4], 'window_size': 4, 'num_labels': 5}, CONFIG),
}  # fmt: skip


def network(family: str) -> Any:
    name, values, _ = FAMILIES[family]

    torch.manual_seed(0)
    model = getattr(transformers, name)(getattr(transformers, f'{family}Config')(**values))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.3)
    return model.eval()


def inputs_of(model: Any) -> dict[str, Tensor]:
    size = 64 if 'Segformer' in type(model).__name__ else 32
    words = torch.tensor([[5, 9, 12, 3, 7, 22, 41, 8]])
    inputs = {'input_ids': words, 'pixel_values': torch.randn(1, 3, size, size)}
    inputs |= {'input_features': torch.randn(1, 8, 32), 'decoder_input_ids': words[:, :3]}
    inputs |= {'attention_mask': torch.ones_like(words)} if 'CLIP' in type(model).__name__ else {}
    main = [model.main_input_name]
    if 'CLIP' in type(model).__name__:
        main = ['input_ids', 'pixel_values', 'attention_mask']
    if model.config.is_encoder_decoder:
        main.append('decoder_input_ids')
    return {name: inputs[name] for name in main}


def halved(graph: ChannelGraph) -> Masks:
    scores = {name: torch.arange(group.size, 0, -1.0) for name, group in graph.groups.items()}
    none = Limits()
    return Masks(
        {
            n: keep_best(s, max(s.numel() // 2, 1), graph.limits.get(n, none))
            for n, s in scores.items()
        }
    )


def outputs_of(model: Any, inputs: dict[str, Tensor]) -> list[Tensor]:
    with torch.no_grad():
        found = model.eval()(**inputs).to_tuple()
    return [output for output in found if isinstance(output, Tensor)]


@pytest.mark.parametrize('family', FAMILIES)
def test_a_family_is_cut_saved_and_loaded(family: str, tmp_path: Path) -> None:
    model = network(family)
    inputs = inputs_of(model)
    graph = easypruner.trace(model, inputs, attention='heads', uniform=True)
    masks = halved(graph)
    assert easypruner.verify(model, masks, inputs, graph=graph).error < 1e-5
    easypruner.prune(model, masks, graph=graph)
    assert (saver_of(model) is None) == FAMILIES[family][2]
    expected = outputs_of(model, inputs)
    if model.can_generate():
        start = {n: t for n, t in inputs.items() if n == model.main_input_name}
        options = {'max_new_tokens': 4, 'min_new_tokens': 4, 'do_sample': False}
        generated = model.generate(**start, **options, use_cache=True)
        assert torch.equal(generated, model.generate(**start, **options, use_cache=False))
    model.save_pretrained(tmp_path)
    again = easypruner.from_pretrained(tmp_path)
    for one, other in zip(outputs_of(again, inputs), expected, strict=True):
        assert torch.allclose(one, other, rtol=1e-4, atol=1e-5)
    if FAMILIES[family][2]:
        kind = type(model).from_pretrained(tmp_path)
        assert all(map(torch.equal, outputs_of(kind, inputs), outputs_of(again, inputs)))
