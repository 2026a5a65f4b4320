"""Which encoder, fields and parameter names a Hugging Face configuration stands for; names as they are on disk.

A rule is (our name, the original's, optional). `{p}` in the original's name is the prefix of the base model ('bert.',
or '' where the base model itself was saved), a tuple gives alternatives, `{n}` is the layer. Optional says what
becomes of a parameter that the original does not have: 'fresh' stays at its initialisation, 'field' means that the
encoder has it, and its width as a field, only where the original does, '' is an error.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

Config = Mapping[str, Any]
Rule = tuple[str, str | tuple[str, ...], str]
ACTIVATIONS = {
    'gelu': 'gelu',
    'gelu_fast': 'gelu_new',
    'gelu_new': 'gelu_new',
    'gelu_pytorch_tanh': 'gelu_new',
    'relu': 'relu',
    'silu': 'silu',
    'swish': 'silu',
}


class Family(NamedTuple):
    """Name in ENCODERS, prefix of the base model, a name that every checkpoint has, fields, and rules given them."""

    name: str
    prefix: str
    anchor: str
    fields: Callable[[Config, Config], dict[str, Any]]
    rules: Callable[[Mapping[str, Any]], list[Rule]]


def dense(ours: str, original: str | tuple[str, ...], *, bias: bool = True, optional: str = '') -> list[Rule]:
    stems = (original,) if isinstance(original, str) else original
    rules: list[Rule] = [(f'{ours}/kernel', tuple(f'{stem}.weight' for stem in stems), optional)]
    return rules + [(f'{ours}/bias', tuple(f'{stem}.bias' for stem in stems), optional)] * bias


def norm(ours: str, original: str | tuple[str, ...], *, optional: str = '') -> list[Rule]:
    stems = (original,) if isinstance(original, str) else original
    return [
        (f'{ours}/scale', tuple(f'{stem}.weight' for stem in stems), optional),
        (f'{ours}/bias', tuple(f'{stem}.bias' for stem in stems), optional),
    ]


def refuse(config: Config, key: str, allowed: tuple[Any, ...]) -> None:
    """ValueError where the configuration asks for a variant that the encoders do not have."""
    if config.get(key, allowed[0]) not in allowed:
        raise ValueError(
            f'config.json has {key} = {config[key]!r}; the encoders here know {" or ".join(map(repr, allowed))}'
        )


def activation(config: Config, key: str) -> str:
    name = config.get(key, 'gelu')
    if name not in ACTIVATIONS:
        raise ValueError(f'config.json has {key} = {name!r}; the known activations are {", ".join(ACTIVATIONS)}')
    return ACTIVATIONS[name]


def square(config: Config, key: str, default: int) -> int:
    """The side of a size that the original may give as a number or as a pair."""
    value = config.get(key, default)
    if isinstance(value, int):
        return value
    if len(set(value)) != 1:
        raise ValueError(f'config.json has {key} = {value}; the encoders here take squares only')
    return int(value[0])


def sizes(config: Config, epsilon: float) -> dict[str, Any]:
    return {
        'hidden_size': config.get('hidden_size', 768),
        'num_layers': config.get('num_hidden_layers', 12),
        'num_heads': config.get('num_attention_heads', 12),
        'intermediate_size': config.get('intermediate_size', 3072),
        'activation': activation(config, 'hidden_act'),
        'epsilon': config.get('layer_norm_eps', epsilon),
    }


def bert_fields(config: Config, preprocessor: Config) -> dict[str, Any]:
    del preprocessor
    refuse(config, 'position_embedding_type', ('absolute',))
    refuse(config, 'is_decoder', (False,))
    roberta = config['model_type'] == 'roberta'
    dropout, classifier = config.get('hidden_dropout_prob', 0.1), config.get('classifier_dropout')
    return {
        **sizes(config, 1e-12),
        'dropout': dropout,
        'attention_dropout': config.get('attention_probs_dropout_prob', 0.1),
        'pool_dropout': dropout if classifier is None else classifier,
        'vocab_size': config.get('vocab_size', 50265 if roberta else 30522),
        'max_positions': config.get('max_position_embeddings', 512),
        'type_vocab_size': config.get('type_vocab_size', 2),
        'position_offset': config.get('pad_token_id', 1) + 1 if roberta else 0,
    }


def distilbert_fields(config: Config, preprocessor: Config) -> dict[str, Any]:
    del preprocessor
    return {
        'hidden_size': config.get('dim', 768),
        'num_layers': config.get('n_layers', 6),
        'num_heads': config.get('n_heads', 12),
        'intermediate_size': config.get('hidden_dim', 3072),
        'activation': activation(config, 'activation'),
        'epsilon': 1e-12,
        'dropout': config.get('dropout', 0.1),
        'attention_dropout': config.get('attention_dropout', 0.1),
        'pool_dropout': config.get('seq_classif_dropout', 0.2),
        'vocab_size': config.get('vocab_size', 30522),
        'max_positions': config.get('max_position_embeddings', 512),
        'type_vocab_size': 0,
    }


def wav2vec2_fields(config: Config, preprocessor: Config) -> dict[str, Any]:
    refuse(config, 'add_adapter', (False,))
    refuse(config, 'adapter_attn_dim', (None,))
    refuse(config, 'conv_pos_batch_norm', (False,))
    stable = config.get('do_stable_layer_norm', False)
    return {
        **sizes(config, 1e-5),
        'pre_norm': stable,
        'final_norm': stable,
        'dropout': config.get('hidden_dropout', 0.1),
        'attention_dropout': config.get('attention_dropout', 0.1),
        'activation_dropout': config.get('activation_dropout', 0.1),
        'layer_drop': config.get('layerdrop', 0.1),
        'normalize': preprocessor.get('do_normalize', True),
        'conv_sizes': tuple(config.get('conv_dim', (512,) * 7)),
        'conv_kernels': tuple(config.get('conv_kernel', (10, 3, 3, 3, 3, 2, 2))),
        'conv_strides': tuple(config.get('conv_stride', (5, 2, 2, 2, 2, 2, 2))),
        'conv_bias': config.get('conv_bias', False),
        'conv_norm': config.get('feat_extract_norm', 'group'),
        'conv_activation': activation(config, 'feat_extract_activation'),
        'projection_norm': config.get('feat_proj_layer_norm', True) if config['model_type'] == 'hubert' else True,
        'projection_dropout': config.get('feat_proj_dropout', 0.0),
        'position_kernel': config.get('num_conv_pos_embeddings', 128),
        'position_groups': config.get('num_conv_pos_embedding_groups', 16),
        'mask_share': config.get('mask_time_prob', 0.05) if config.get('apply_spec_augment', True) else 0.0,
        'mask_span': config.get('mask_time_length', 10),
        'mask_fewest': config.get('mask_time_min_masks', 2),
    }


def patch_fields(config: Config, preprocessor: Config) -> dict[str, Any]:
    """Of ViT, AST and VideoMAE."""
    fields = {
        **sizes(config, 1e-12),
        'dropout': config.get('hidden_dropout_prob', 0.0),
        'attention_dropout': config.get('attention_probs_dropout_prob', 0.0),
        'patch_size': square(config, 'patch_size', 16),
    }
    if config['model_type'] == 'audio-spectrogram-transformer':
        given = {key: preprocessor[key] for key in ('mean', 'std') if key in preprocessor}
        fields |= {'qkv_bias': config.get('qkv_bias', True), 'max_length': config.get('max_length', 1024)}
        fields |= {'num_bands': config.get('num_mel_bins', 128), 'time_stride': config.get('time_stride', 10)}
        return fields | {'frequency_stride': config.get('frequency_stride', 10), **given}
    refuse(config, 'num_channels', (3,))
    fields['image_size'] = square(config, 'image_size', 224)
    for ours, key in (('mean', 'image_mean'), ('std', 'image_std')):
        if key in preprocessor:
            fields[ours] = tuple(preprocessor[key])
    if config['model_type'] == 'vit':
        return fields | {'qkv_bias': config.get('qkv_bias', True)}
    refuse(config, 'use_mean_pooling', (True,))
    fields |= {'num_frames': config.get('num_frames', 16), 'tubelet_size': config.get('tubelet_size', 2)}
    return fields | {'qkv_bias': config.get('qv_bias', True)}


def bert_rules(fields: Mapping[str, Any]) -> list[Rule]:
    layer, block = 'layer_{n}', '{p}encoder.layer.{n}'
    rules: list[Rule] = [
        ('embeddings/tokens/embedding', '{p}embeddings.word_embeddings.weight', ''),
        ('embeddings/positions/embedding', '{p}embeddings.position_embeddings.weight', ''),
        *norm('embeddings/norm', '{p}embeddings.LayerNorm'),
        *dense(f'{layer}/attention/out', f'{block}.attention.output.dense'),
        *norm(f'{layer}/attention_norm', f'{block}.attention.output.LayerNorm'),
        *dense(f'{layer}/intermediate', f'{block}.intermediate.dense'),
        *dense(f'{layer}/output', f'{block}.output.dense'),
        *norm(f'{layer}/output_norm', f'{block}.output.LayerNorm'),
        *dense('projector', ('classifier.dense', '{p}pooler.dense'), optional='field'),
    ]
    for name in ('query', 'key', 'value'):
        rules += dense(f'{layer}/attention/{name}', f'{block}.attention.self.{name}')
    if fields['type_vocab_size']:
        rules.append(('embeddings/types/embedding', '{p}embeddings.token_type_embeddings.weight', ''))
    return rules


def distilbert_rules(fields: Mapping[str, Any]) -> list[Rule]:
    del fields
    layer, block = 'layer_{n}', '{p}transformer.layer.{n}'
    rules: list[Rule] = [
        ('embeddings/tokens/embedding', '{p}embeddings.word_embeddings.weight', ''),
        ('embeddings/positions/embedding', '{p}embeddings.position_embeddings.weight', ''),
        *norm('embeddings/norm', '{p}embeddings.LayerNorm'),
        *norm(f'{layer}/attention_norm', f'{block}.sa_layer_norm'),
        *dense(f'{layer}/intermediate', f'{block}.ffn.lin1'),
        *dense(f'{layer}/output', f'{block}.ffn.lin2'),
        *norm(f'{layer}/output_norm', f'{block}.output_layer_norm'),
        *dense('projector', 'pre_classifier', optional='field'),
    ]
    for name, theirs in (('query', 'q_lin'), ('key', 'k_lin'), ('value', 'v_lin'), ('out', 'out_lin')):
        rules += dense(f'{layer}/attention/{name}', f'{block}.attention.{theirs}')
    return rules


def wav2vec2_rules(fields: Mapping[str, Any]) -> list[Rule]:
    layer, block = 'layer_{n}', '{p}encoder.layers.{n}'
    conv, weight = '{p}encoder.pos_conv_embed.conv', '{p}encoder.pos_conv_embed.conv.parametrizations.weight'
    rules: list[Rule] = [
        ('embeddings/positions/magnitude', (f'{weight}.original0', f'{conv}.weight_g'), ''),
        ('embeddings/positions/direction', (f'{weight}.original1', f'{conv}.weight_v'), ''),
        ('embeddings/positions/bias', f'{conv}.bias', ''),
        *dense('embeddings/projection', '{p}feature_projection.projection'),
        *norm('norm' if fields['final_norm'] else 'embeddings/norm', '{p}encoder.layer_norm'),
        *norm(f'{layer}/attention_norm', f'{block}.layer_norm'),
        *dense(f'{layer}/intermediate', f'{block}.feed_forward.intermediate_dense'),
        *dense(f'{layer}/output', f'{block}.feed_forward.output_dense'),
        *norm(f'{layer}/output_norm', f'{block}.final_layer_norm'),
        *dense('projector', 'projector', optional='field'),
    ]
    for name in ('query', 'key', 'value', 'out'):
        rules += dense(f'{layer}/attention/{name}', f'{block}.attention.{name if name == "out" else name[0]}_proj')
    for number in range(len(fields['conv_sizes'])):
        theirs = f'{{p}}feature_extractor.conv_layers.{number}'
        rules += dense(f'embeddings/conv_{number}', f'{theirs}.conv', bias=fields['conv_bias'])
        if number == 0 or fields['conv_norm'] == 'layer':
            rules += norm(f'embeddings/conv_norm_{number}', f'{theirs}.layer_norm')
    if fields['projection_norm']:
        rules += norm('embeddings/projection_norm', '{p}feature_projection.layer_norm')
    if fields['mask_share']:
        rules.append(('embeddings/hidden', '{p}masked_spec_embed', 'fresh'))
    return rules


def patch_rules(fields: Mapping[str, Any], *, tokens: tuple[str, ...] = (), last: list[Rule]) -> list[Rule]:
    """Of ViT, AST and VideoMAE; `last`: what stands behind the layers."""
    layer, block = 'layer_{n}', '{p}encoder.layer.{n}'
    attention, bias = f'{block}.attention.attention', fields['qkv_bias']
    rules = [
        *dense('embeddings/patches', '{p}embeddings.patch_embeddings.projection'),
        *dense(f'{layer}/attention/out', f'{block}.attention.output.dense'),
        *norm(f'{layer}/attention_norm', f'{block}.layernorm_before'),
        *dense(f'{layer}/intermediate', f'{block}.intermediate.dense'),
        *dense(f'{layer}/output', f'{block}.output.dense'),
        *norm(f'{layer}/output_norm', f'{block}.layernorm_after'),
        *last,
    ]
    for name in ('query', 'key', 'value'):
        rules += dense(f'{layer}/attention/{name}', f'{attention}.{name}', bias=bias and bool(tokens))
    if not tokens:  # VideoMAE has biases of its own beside the dense layers, none for the keys
        for name in ('query', 'value') if bias else ():
            theirs = (f'{attention}.{name[0]}_bias', f'{attention}.{name}.bias')
            rules.append((f'{layer}/attention/{name}/bias', theirs, ''))
    else:
        rules.append(('embeddings/positions', '{p}embeddings.position_embeddings', ''))
    return rules + [
        (f'embeddings/{ours}', f'{{p}}embeddings.{theirs}', '') for ours, theirs in zip(TOKENS, tokens, strict=False)
    ]


def vit_rules(fields: Mapping[str, Any]) -> list[Rule]:
    last = norm('norm', '{p}layernorm') + dense('projector', '{p}pooler.dense', optional='field')
    return patch_rules(fields, tokens=('cls_token',), last=last)


def ast_rules(fields: Mapping[str, Any]) -> list[Rule]:
    last = norm('norm', '{p}layernorm') + norm('pool_norm', 'classifier.layernorm', optional='fresh')
    return patch_rules(fields, tokens=('cls_token', 'distillation_token'), last=last)


def videomae_rules(fields: Mapping[str, Any]) -> list[Rule]:
    return patch_rules(fields, last=norm('pool_norm', 'fc_norm', optional='fresh'))


TOKENS = ('class_token', 'distillation_token')
WORDS, PATCHES = 'embeddings.word_embeddings.weight', 'embeddings.patch_embeddings.projection.weight'
WAVE = 'feature_projection.projection.weight'
# By model_type of config.json.
FAMILIES = {
    'bert': Family('bert', 'bert.', WORDS, bert_fields, bert_rules),
    'roberta': Family('roberta', 'roberta.', WORDS, bert_fields, bert_rules),
    'distilbert': Family('distilbert', 'distilbert.', WORDS, distilbert_fields, distilbert_rules),
    'wav2vec2': Family('wav2vec2', 'wav2vec2.', WAVE, wav2vec2_fields, wav2vec2_rules),
    'hubert': Family('hubert', 'hubert.', WAVE, wav2vec2_fields, wav2vec2_rules),
    'vit': Family('vit', 'vit.', PATCHES, patch_fields, vit_rules),
    'audio-spectrogram-transformer': Family('ast', 'audio_spectrogram_transformer.', PATCHES, patch_fields, ast_rules),
    'videomae': Family('videomae', 'videomae.', PATCHES, patch_fields, videomae_rules),
}
