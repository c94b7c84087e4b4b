"""Configs of Hugging Face after a cut: they describe the network, or its folder needs our door."""

from __future__ import annotations

import copy
import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import easypruner
from easypruner import Masks
from easypruner.errors import ConfigError, EasyPrunerError, RecordError
from easypruner.testing import randomized_network

transformers = pytest.importorskip('transformers')

TEXT = {
    'hidden_size': 16,
    'intermediate_size': 24,
    'num_hidden_layers': 2,
    'num_attention_heads': 4,
    'num_key_value_heads': 2,
    'vocab_size': 30,
    'max_position_embeddings': 32,
    'bos_token_id': 1,
    'eos_token_id': 2,
    'pad_token_id': 0,
}
IDS = torch.tensor([[5, 9, 12, 3, 7, 22]])


def network(kind: str, **config: Any) -> Any:
    """Return a randomized tiny network in evaluation mode, as most attention is written today."""

    def build() -> nn.Module:
        made = getattr(transformers, f'{kind}Config')(**config)
        return getattr(transformers, FAMILIES[kind][0])(made)

    return randomized_network(build)


FAMILIES: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    'Llama': ('LlamaForCausalLM', TEXT, {
        'hidden_size': 8, 'intermediate_size': 12, 'num_attention_heads': 2,
        'num_key_value_heads': 1, 'head_dim': 4,
    }),
    'Mixtral': (
        'MixtralForCausalLM',
        {**TEXT, 'num_local_experts': 4, 'num_experts_per_tok': 2},
        {'num_local_experts': 2, 'intermediate_size': 12, 'num_key_value_heads': 1},
    ),
    'GPT2': (
        'GPT2LMHeadModel',
        {'n_embd': 16, 'n_layer': 2, 'n_head': 4, 'vocab_size': 30, 'n_positions': 32,
         'bos_token_id': 1, 'eos_token_id': 2},
        {'n_embd': 8, 'n_head': 2, 'n_inner': 24},
    ),
    'T5': (
        'T5ForConditionalGeneration',
        {'d_model': 16, 'd_kv': 4, 'd_ff': 24, 'num_layers': 2, 'num_heads': 4, 'vocab_size': 30,
         'decoder_start_token_id': 0},
        {'d_model': 16, 'd_kv': 4, 'd_ff': 12, 'num_heads': 2},
    ),
    # It has a table of positions in a plain attribute.
    'VideoMAE': (
        'VideoMAEForVideoClassification',
        {'hidden_size': 16, 'intermediate_size': 24, 'num_hidden_layers': 2,
         'num_attention_heads': 4, 'image_size': 16, 'patch_size': 8, 'num_frames': 4,
         'tubelet_size': 2, 'num_labels': 3},
        {'hidden_size': 16, 'intermediate_size': 12},
    ),
    'ConvNext': (
        'ConvNextForImageClassification',
        {'hidden_sizes': [4, 8, 12, 16], 'depths': [1, 1, 1, 1], 'num_labels': 3},
        {'hidden_sizes': [2, 4, 6, 8]},
    ),
}  # fmt: skip
"""Name of the config -> class, config, and what the config says with half of everything."""
SLOW = ('GPT2', 'T5', 'Mixtral')


def inputs_of(kind: str) -> dict[str, Tensor]:
    if kind == 'VideoMAE':
        return {'pixel_values': torch.randn(1, 4, 3, 16, 16)}
    if kind == 'ConvNext':
        return {'pixel_values': torch.randn(1, 3, 32, 32)}
    return {'input_ids': IDS, **({'decoder_input_ids': IDS[:, :3]} if kind == 'T5' else {})}


def halved(graph: Any, fewer: dict[str, int] | None = None) -> Masks:
    """Return masks that keep the first half of each group, or another number."""
    kept = {name: group.size // 2 for name, group in graph.groups.items()} | (fewer or {})
    return Masks({n: torch.arange(graph.groups[n].size) < k for n, k in kept.items() if k})


def output_of(model: Any, inputs: dict[str, Tensor]) -> Tensor:
    with torch.no_grad():
        found: Tensor = model.eval()(**inputs).logits
    return found


@pytest.mark.parametrize(
    'kind', [pytest.param(k, marks=pytest.mark.slow) if k in SLOW else k for k in FAMILIES]
)
def test_the_config_follows_and_the_folder_gives_equal_outputs(kind: str, tmp_path: Path) -> None:
    model, inputs = network(kind, **FAMILIES[kind][1]), inputs_of(kind)
    graph = easypruner.trace(model, inputs, attention='heads', uniform=True)
    inner = {name: 24 for name in graph.groups if kind == 'GPT2' and 'mlp' in name}
    inner |= {n: 0 for n in graph.groups if kind == 'VideoMAE' and graph.groups[n].size != 24}
    record = easypruner.prune(model, halved(graph, inner), graph=graph)
    wanted = FAMILIES[kind][2]
    assert {name: getattr(model.config, name) for name in wanted} == wanted
    model.save_pretrained(tmp_path)
    expected = output_of(model, inputs)
    for load in (type(model).from_pretrained, easypruner.from_pretrained):
        assert torch.equal(output_of(load(tmp_path), inputs), expected)
    fresh = getattr(transformers, f'{kind}Config')(**FAMILIES[kind][1])
    again = easypruner.load_pruned(lambda: type(model)(fresh), model.state_dict(), record)
    assert {name: getattr(again.config, name) for name in wanted} == wanted
    assert {name: getattr(fresh, name) for name in wanted} != wanted
    if model.can_generate():
        start = {'input_ids': IDS, 'max_new_tokens': 4, 'min_new_tokens': 4, 'do_sample': False}
        with_cache = model.generate(**start, use_cache=True)
        assert torch.equal(with_cache, model.generate(**start, use_cache=False))


def llama(**changed: Any) -> Any:
    return network('Llama', **{**TEXT, **changed})


def uneven(model: Any) -> Any:
    """Cut the MLP of the first layer alone, and return the record."""
    graph = easypruner.trace(model, {'input_ids': IDS})
    masks = Masks({'model.layers.0.mlp.gate_proj': torch.arange(24) < 9})
    return easypruner.prune(model, masks, graph=graph)


def test_what_no_config_says_loads_through_our_door_alone(tmp_path: Path) -> None:
    model = llama(tie_word_embeddings=True)
    uneven(model)
    model.generation_config.max_new_tokens = 3
    assert model.config.intermediate_size == 24
    model.save_pretrained(tmp_path / 'whole')
    copy.deepcopy(model).save_pretrained(tmp_path / 'copied')
    pickle.loads(pickle.dumps(model)).save_pretrained(tmp_path / 'pickled')
    model.model.save_pretrained(tmp_path / 'part')
    expected = output_of(model, {'input_ids': IDS})
    for name in ('whole', 'copied', 'pickled'):
        again = easypruner.from_pretrained(tmp_path / name)
        assert torch.equal(output_of(again, {'input_ids': IDS}), expected)
        assert again.generation_config.max_new_tokens == 3
        assert again.lm_head.weight is again.model.embed_tokens.weight
    again.save_pretrained(tmp_path / 'again')
    assert (
        easypruner.from_pretrained(tmp_path / 'again').model.layers[0].mlp.up_proj.out_features == 9
    )
    part = easypruner.from_pretrained(tmp_path / 'part')
    assert type(part) is type(model.model)
    assert torch.equal(part(IDS).last_hidden_state, model.model(IDS).last_hidden_state)
    with pytest.raises(ValueError, match=r'load the folder with easypruner\.from_pretrained'):
        transformers.AutoModelForCausalLM.from_pretrained(tmp_path / 'whole')
    with pytest.raises(RuntimeError):
        transformers.LlamaForCausalLM.from_pretrained(tmp_path / 'whole')
    mark = json.loads((tmp_path / 'whole/config.json').read_text())['easypruner']
    assert 'uniform=True' in mark['reason']
    with pytest.raises(EasyPrunerError, match='push_to_hub'):
        model.save_pretrained(tmp_path / 'hub', push_to_hub=True)


def test_a_later_cut_that_makes_widths_equal_makes_the_config_true(tmp_path: Path) -> None:
    model = llama()
    first = uneven(model)
    graph = easypruner.trace(model, {'input_ids': IDS})
    masks = Masks({'model.layers.1.mlp.gate_proj': torch.arange(24) < 9})
    second = easypruner.prune(model, masks, graph=graph)
    assert model.config.intermediate_size == 9
    model.save_pretrained(tmp_path)
    again = type(model).from_pretrained(tmp_path)
    expected = output_of(model, {'input_ids': IDS})
    assert torch.equal(output_of(again, {'input_ids': IDS}), expected)
    build = lambda: llama()  # noqa: E731
    loaded = easypruner.load_pruned(build, model.state_dict(), first.then(second))
    assert loaded.config.intermediate_size == 9  # type: ignore[union-attr]


def test_another_network_of_the_same_config_keeps_it() -> None:
    config = transformers.LlamaConfig(**TEXT)
    model, teacher = (transformers.LlamaForCausalLM(config) for _ in range(2))
    ids = {'input_ids': IDS}
    slimmed = easypruner.slim(
        model, ids, params=0.7, attention='heads', uniform=True, limits=dict(round_to=4)
    )
    graph = easypruner.trace(model, {'input_ids': IDS}, attention='heads')
    easypruner.prune(model, halved(graph), graph=graph)
    assert teacher.config is config and config.hidden_size == 16
    assert model.config.hidden_size == model.model.config.hidden_size == 8
    slim_config = slimmed.model.config
    assert slim_config.hidden_size == slimmed.model.lm_head.in_features < 16


def test_a_copy_that_is_cut_along_gets_the_config_as_well() -> None:
    model = llama()
    teacher = copy.deepcopy(model)
    graph = easypruner.trace(model, {'input_ids': IDS}, attention='heads')
    easypruner.prune(model, halved(graph), graph=graph, copies=teacher)
    assert teacher.config.to_dict() == model.config.to_dict()


def test_a_number_that_the_forward_pass_computes_with_is_not_changed(tmp_path: Path) -> None:
    class Scaled(transformers.LlamaForCausalLM):  # type: ignore[misc,name-defined]
        def forward(self, input_ids: Tensor) -> Any:
            found = super().forward(input_ids)
            found.logits = found.logits * self.config.intermediate_size
            return found

    torch.manual_seed(0)
    model = Scaled(transformers.LlamaConfig(**TEXT)).eval()
    graph = easypruner.trace(model, {'input_ids': IDS}, attention='heads')
    easypruner.prune(model, halved(graph), graph=graph)
    assert model.config.intermediate_size == 24
    model.save_pretrained(tmp_path)
    reason = json.loads((tmp_path / 'config.json').read_text())['easypruner']['reason']
    assert 'computes with numbers of its config' in reason
    again = easypruner.from_pretrained(tmp_path, model_class=Scaled)
    expected = output_of(model, {'input_ids': IDS})
    assert torch.equal(output_of(again, {'input_ids': IDS}), expected)
    with pytest.raises(ConfigError, match=r'no class of networks .Scaled.*model_class='):
        easypruner.from_pretrained(tmp_path)


def test_a_number_of_the_config_that_a_cut_sets_is_not_that_of_the_unpruned_network(
    tmp_path: Path,
) -> None:
    class HeadsConfig(transformers.PretrainedConfig):  # type: ignore[misc,name-defined]
        def __init__(self, width: int = 16, heads: int = 4, **options: Any) -> None:
            super().__init__(**options)
            self.width, self.heads = width, heads

    class Attention(transformers.PreTrainedModel):  # type: ignore[misc,name-defined]
        config_class = HeadsConfig

        def __init__(self, config: Any) -> None:
            super().__init__(config)
            self.head_width = config.width // config.heads
            self.query, self.key, self.value, self.last = (
                nn.Linear(config.width, config.width) for _ in range(4)
            )

        def forward(self, tokens: Tensor) -> Tensor:
            batch, length, _ = tokens.shape
            query, key, value = (
                layer(tokens).view(batch, length, -1, self.head_width).transpose(1, 2)
                for layer in (self.query, self.key, self.value)
            )
            mask = torch.ones(length, length).tril().log().expand(batch, self.config.heads, -1, -1)
            attended = nn.functional.scaled_dot_product_attention(query, key, value, mask)
            return self.last(attended.transpose(1, 2).flatten(2))

    model = randomized_network(lambda: Attention(HeadsConfig()))
    tokens = torch.randn(2, 5, 16)
    graph = easypruner.trace(model, tokens, attention='heads')
    easypruner.prune(model, halved(graph), graph=graph)
    assert model.config.heads == 2 and model.head_width == 4
    for folder in (tmp_path / 'first', tmp_path / 'second'):
        model.save_pretrained(folder)
        loaded = easypruner.from_pretrained(folder, model_class=Attention)
        assert loaded.config.heads == 2 and loaded.head_width == 4
        assert torch.equal(loaded(tokens), model(tokens))
        model = loaded


def test_a_network_inside_of_another_follows(tmp_path: Path) -> None:
    class Tagger(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.text = transformers.LlamaModel(transformers.LlamaConfig(**TEXT))
            self.tags = nn.Linear(16, 3)

        def forward(self, ids: Tensor) -> Tensor:
            return self.tags(self.text(ids).last_hidden_state)

    torch.manual_seed(0)
    model = Tagger().eval()
    graph = easypruner.trace(model, IDS, attention='heads')
    record = easypruner.prune(model, halved(graph), graph=graph)
    assert model.text.config.hidden_size == 8
    assert record.attributes['text', 'config.num_attention_heads'] == 2
    model.text.save_pretrained(tmp_path)
    again = easypruner.from_pretrained(tmp_path)
    assert torch.equal(model.tags(again(IDS).last_hidden_state), model(IDS))


@pytest.mark.parametrize(
    'fault', ['record', 'weights', 'other weights', 'class', 'folder', 'format']
)
def test_a_damaged_folder_is_an_error_that_names_the_file(fault: str, tmp_path: Path) -> None:
    model = llama()
    uneven(model)
    model.save_pretrained(tmp_path)
    config = json.loads((tmp_path / 'config.json').read_text())
    expected: type[Exception] = RecordError
    match, folder = 'config.json', tmp_path
    if fault == 'record':
        match = 'architecture.json'
        (tmp_path / match).unlink()
    elif fault == 'weights':
        match = 'model.safetensors'
        (tmp_path / match).write_bytes(b'short')
    elif fault == 'other weights':
        match = "lacks weights: 'model.layers.0.mlp.gate_proj.weight'|does not fit"
        llama(num_hidden_layers=1).save_pretrained(tmp_path / 'other')
        (tmp_path / 'other/model.safetensors').replace(tmp_path / 'model.safetensors')
    elif fault == 'class':
        expected, match = ConfigError, "'os'"
        config['easypruner']['class'] = 'os'
    elif fault == 'format':
        config['easypruner']['format'] = 2
    else:
        expected, match, folder = ConfigError, 'no folder', tmp_path / 'absent'
    if fault in ('class', 'format'):
        (tmp_path / 'config.json').write_text(json.dumps(config))
    with pytest.raises(expected, match=match):
        easypruner.from_pretrained(folder)
