"""Networks of diffusers on which EasyPruner is measured: small ones with random weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

_CONTEXT, _WORDS = 24, 5
_UNET = {'block_out_channels': (16, 32), 'norm_num_groups': 4, 'layers_per_block': 1}
_CONDITIONED = {**_UNET, 'cross_attention_dim': _CONTEXT, 'attention_head_dim': 8}
_DOWN, _UP = ('DownBlock2D', 'CrossAttnDownBlock2D'), ('CrossAttnUpBlock2D', 'UpBlock2D')
_CODER = {
    'down_block_types': ('DownEncoderBlock2D',) * 2, 'up_block_types': ('UpDecoderBlock2D',) * 2,
    'block_out_channels': (16, 32), 'norm_num_groups': 4,
}  # fmt: skip
_TRANSFORMER = {'num_attention_heads': 4, 'attention_head_dim': 8, 'num_layers': 2}
_JOINT = {'joint_attention_dim': _CONTEXT, 'in_channels': 4, 'sample_size': 16}


@dataclass(frozen=True)
class _Network:
    """The settings of a network, and the arguments of its forward from (its image, its words)."""

    settings: dict[str, Any]
    arguments: Callable[[], dict[str, Any]]


def _normal(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def _image(channels: int = 3, side: int = 16) -> dict[str, Tensor]:
    return {'sample': _normal(1, channels, side, side)}


def _latent(channels: int = 4, side: int = 16) -> dict[str, Tensor]:
    return {'hidden_states': _normal(1, channels, side, side)}


def _step(whole: bool = True) -> dict[str, Tensor]:
    return {'timestep': torch.tensor([3 if whole else 3.0])}


def _words() -> dict[str, Tensor]:
    return {'encoder_hidden_states': _normal(1, _WORDS, _CONTEXT)}


def _pooled() -> dict[str, Tensor]:
    return {'pooled_projections': _normal(1, 20)}


def _seen() -> dict[str, Tensor]:
    return {'encoder_attention_mask': torch.ones(1, _WORDS, dtype=torch.bool)}


def _flux() -> dict[str, Tensor]:
    positions = torch.arange(16)
    image = torch.stack([positions * 0, positions // 4, positions % 4], 1).float()
    return {
        'hidden_states': _normal(1, 16, 8), **_words(), **_pooled(), **_step(False),
        'img_ids': image, 'txt_ids': torch.zeros(_WORDS, 3),
    }  # fmt: skip


NETWORKS = {
    'UNet2DModel': _Network(
        {**_UNET, 'down_block_types': ('DownBlock2D', 'AttnDownBlock2D'),
         'up_block_types': ('AttnUpBlock2D', 'UpBlock2D'), 'attention_head_dim': 8},
        lambda: _image() | _step()),
    'UNet2DConditionModel': _Network(
        {**_CONDITIONED, 'down_block_types': _DOWN, 'up_block_types': _UP},
        lambda: _image(4) | _step() | _words()),
    'ControlNetModel': _Network(
        {**_CONDITIONED, 'down_block_types': _DOWN,
         'conditioning_embedding_out_channels': (8, 16)},
        lambda: _image(4) | _step() | _words() | {'controlnet_cond': _normal(1, 3, 32, 32)}),
    'UNet1DModel': _Network(
        {'block_out_channels': (32, 32, 64), 'sample_size': 64, 'extra_in_channels': 64},
        lambda: {'sample': _normal(1, 2, 64)} | _step()),
    'UNet3DConditionModel': _Network(
        {**_CONDITIONED, 'down_block_types': ('DownBlock3D', 'CrossAttnDownBlock3D'),
         'up_block_types': ('CrossAttnUpBlock3D', 'UpBlock3D')},
        lambda: {'sample': _normal(1, 4, 2, 16, 16)} | _step() | _words()),
    'AutoencoderKL': _Network(_CODER, _image),
    'AutoencoderTiny': _Network(
        {'encoder_block_out_channels': (16,) * 4, 'decoder_block_out_channels': (16,) * 4},
        lambda: _image(3, 32)),
    'AutoencoderDC': _Network(
        {'latent_channels': 4, 'attention_head_dim': 8,
         'encoder_block_types': ('ResBlock', 'EfficientViTBlock'),
         'decoder_block_types': ('ResBlock', 'EfficientViTBlock'),
         'encoder_block_out_channels': (16, 32), 'decoder_block_out_channels': (16, 32),
         'encoder_layers_per_block': (1, 1), 'decoder_layers_per_block': (1, 1),
         'encoder_qkv_multiscales': ((), (5,)), 'decoder_qkv_multiscales': ((), (5,))},
        _image),
    'VQModel': _Network(_CODER, _image),
    'DiTTransformer2DModel': _Network(
        {**_TRANSFORMER, 'sample_size': 16, 'num_embeds_ada_norm': 10},
        lambda: _latent() | _step() | {'class_labels': torch.tensor([1])}),
    'PixArtTransformer2DModel': _Network(
        {**_TRANSFORMER, 'sample_size': 16, 'cross_attention_dim': 32,
         'caption_channels': _CONTEXT},
        lambda: _latent() | _step() | _words() | {'added_cond_kwargs': {}}),
    'SD3Transformer2DModel': _Network(
        {**_TRANSFORMER, **_JOINT, 'caption_projection_dim': 32, 'pooled_projection_dim': 20,
         'pos_embed_max_size': 16},
        lambda: _latent() | _step() | _words() | _pooled()),
    'AuraFlowTransformer2DModel': _Network(
        {'num_attention_heads': 4, 'attention_head_dim': 8, **_JOINT, 'num_mmdit_layers': 1,
         'num_single_dit_layers': 1, 'caption_projection_dim': 32, 'pos_embed_max_size': 64},
        lambda: _latent() | _step(False) | _words()),
    'FluxTransformer2DModel': _Network(
        {**_TRANSFORMER, 'num_single_layers': 1, 'in_channels': 8, 'pooled_projection_dim': 20,
         'joint_attention_dim': _CONTEXT, 'axes_dims_rope': (2, 2, 4)}, _flux),
    'SanaTransformer2DModel': _Network(
        {**_TRANSFORMER, 'in_channels': 4, 'out_channels': 4, 'num_cross_attention_heads': 4,
         'cross_attention_head_dim': 8, 'cross_attention_dim': 32,
         'caption_channels': _CONTEXT, 'sample_size': 16},
        lambda: _latent() | _step() | _words()),
    'Lumina2Transformer2DModel': _Network(
        {'hidden_size': 32, 'num_layers': 2, 'num_refiner_layers': 1, 'num_attention_heads': 4,
         'num_kv_heads': 2, 'multiple_of': 8, 'axes_dim_rope': (4, 2, 2),
         'axes_lens': (32, 32, 32), 'cap_feat_dim': _CONTEXT, 'in_channels': 4},
        lambda: _latent() | _step(False) | _words() | _seen()),
    'WanTransformer3DModel': _Network(
        {**_TRANSFORMER, 'in_channels': 4, 'out_channels': 4, 'text_dim': _CONTEXT,
         'freq_dim': 16, 'ffn_dim': 48, 'rope_max_seq_len': 32},
        lambda: {'hidden_states': _normal(1, 4, 2, 8, 8)} | _step() | _words()),
    'CogVideoXTransformer3DModel': _Network(
        {**_TRANSFORMER, 'in_channels': 4, 'out_channels': 4, 'time_embed_dim': 16,
         'text_embed_dim': _CONTEXT, 'sample_width': 8, 'sample_height': 8, 'sample_frames': 5,
         'max_text_seq_length': _WORDS},
        lambda: {'hidden_states': _normal(1, 2, 4, 8, 8)} | _step() | _words()),
}  # fmt: skip
"""Class -> its network."""


def build(name: str) -> tuple[nn.Module, dict[str, Any]]:
    """Return a network of diffusers, and the arguments of its forward."""
    import diffusers

    network = NETWORKS[name]
    return getattr(diffusers, name)(**network.settings), network.arguments()
