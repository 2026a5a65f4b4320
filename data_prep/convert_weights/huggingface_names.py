"""Which encoder, fields and parameter names a Hugging Face configuration stands for; names as they are on disk.

A rule is (our name, the original's, optional). `{p}` in the original's name is the prefix of the base model ('bert.',
or '' where the base model itself was saved), a tuple gives alternatives, `{n}` is the layer. Optional says what
becomes of a parameter that the original does not have: 'fresh' stays at its initialisation, a fresh projector as wide
as the states; 'field' means that the encoder has it only where the original does; '' is an error.
"""

import math
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from data_prep.convert_weights.huggingface_settings import Settings

Rule = tuple[str, str | tuple[str, ...], str]
SAMPLE_RATE = 16000  # of the speech encoders
# RoBERTa's network under other names, by model_type: words in the vocabulary where config.json does not say.
ROBERTAS = {'roberta': 50265, 'xlm-roberta': 30522, 'camembert': 30522, 'data2vec-text': 30522}
LAYER_SUM_BEFORE_NORM = (5, 16)  # the version of transformers whose sum over layers has the last state before its norm
HALF = (0.5, 0.5, 0.5)  # mean and deviation that transformers takes where a preprocessor names none


class Family(NamedTuple):
    """Name in ENCODERS, prefix of the base model, a name that every checkpoint has, fields, and rules given them."""

    name: str
    prefix: str
    anchor: str
    fields: Callable[[Settings, Settings], dict[str, Any]]
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


def sizes(config: Settings, epsilon: float) -> dict[str, Any]:
    return {
        'hidden_size': config.whole('hidden_size', 768),
        'num_layers': config.whole('num_hidden_layers', 12),
        'num_heads': config.whole('num_attention_heads', 12),
        'intermediate_size': config.whole('intermediate_size', 3072),
        'activation': config.activation('hidden_act'),
        'epsilon': config.real('layer_norm_eps', epsilon),
    }


def bert_fields(config: Settings, preprocessor: Settings) -> dict[str, Any]:
    del preprocessor
    config.demand('position_embedding_type', 'absolute')
    config.demand('is_decoder', False)
    roberta = config.get('model_type') in ROBERTAS
    dropout = config.real('hidden_dropout_prob', 0.1)
    return {
        **sizes(config, 1e-12),
        'dropout': dropout,
        'attention_dropout': config.real('attention_probs_dropout_prob', 0.1),
        'pool_dropout': dropout if config.get('classifier_dropout') is None else config.real('classifier_dropout', 0),
        'vocab_size': config.whole('vocab_size', ROBERTAS.get(config.get('model_type'), 30522)),
        'max_positions': config.whole('max_position_embeddings', 512),
        'type_vocab_size': config.whole('type_vocab_size', 2, least=0),
        'position_offset': config.whole('pad_token_id', 1, least=0) + 1 if roberta else 0,
    }


def distilbert_fields(config: Settings, preprocessor: Settings) -> dict[str, Any]:
    del preprocessor
    return {
        'hidden_size': config.whole('dim', 768),
        'num_layers': config.whole('n_layers', 6),
        'num_heads': config.whole('n_heads', 12),
        'intermediate_size': config.whole('hidden_dim', 3072),
        'activation': config.activation('activation'),
        'epsilon': 1e-12,
        'dropout': config.real('dropout', 0.1),
        'attention_dropout': config.real('attention_dropout', 0.1),
        'pool_dropout': config.real('seq_classif_dropout', 0.2),
        'vocab_size': config.whole('vocab_size', 30522),
        'max_positions': config.whole('max_position_embeddings', 512),
        'type_vocab_size': 0,
    }


def wav2vec2_fields(config: Settings, preprocessor: Settings) -> dict[str, Any]:
    config.demand('add_adapter', False)
    config.demand('adapter_attn_dim', None)
    config.demand('conv_pos_batch_norm', False)
    preprocessor.demand('sampling_rate', SAMPLE_RATE)
    preprocessor.demand('padding_value', 0.0, 0)
    stable = config.flag('do_stable_layer_norm', False)
    hides = config.flag('apply_spec_augment', True)
    hubert = config.get('model_type') == 'hubert'
    convolutions = len(config.wholes('conv_dim', (512,) * 7))
    config.demand('num_feat_extract_layers', convolutions)
    if not hides:
        config.get('mask_feature_prob')  # nothing is hidden then; else the user is told that channels are not hidden
    return {
        **sizes(config, 1e-5),
        'pre_norm': stable,
        'final_norm': stable,
        'dropout': config.real('hidden_dropout', 0.1),
        'attention_dropout': config.real('attention_dropout', 0.1),
        'activation_dropout': config.real('activation_dropout', 0.1),
        'layer_drop': config.real('layerdrop', 0.1),
        'normalize': preprocessor.flag('do_normalize', True),
        'conv_sizes': config.wholes('conv_dim', (512,) * 7),
        'conv_kernels': config.wholes('conv_kernel', (10, 3, 3, 3, 3, 2, 2)),
        'conv_strides': config.wholes('conv_stride', (5, 2, 2, 2, 2, 2, 2)),
        'conv_bias': config.flag('conv_bias', False),
        'conv_norm': config.demand('feat_extract_norm', 'group', 'layer'),
        'conv_activation': config.activation('feat_extract_activation'),
        'projection_norm': config.flag('feat_proj_layer_norm', True) if hubert else True,
        'projection_dropout': config.real('feat_proj_dropout', 0.0),
        'position_kernel': config.whole('num_conv_pos_embeddings', 128),
        'position_groups': config.whole('num_conv_pos_embedding_groups', 16),
        'mask_share': config.real('mask_time_prob', 0.05) if hides else 0.0,
        'mask_span': config.whole('mask_time_length', 10),
        'mask_fewest': config.whole('mask_time_min_masks', 2, least=0),
        **layer_sum_fields(config, stable),
    }


def layer_sum_fields(config: Settings, stable: bool) -> dict[str, Any]:
    """Of a classifier that reads the learnt sum of all states; {} of another.

    The last state of a stable-layer-norm network went into it behind the final norm in transformers before 5.16, and
    goes in as it was before it since; the weights were trained with what the version that wrote the folder did.
    """
    if not config.flag('use_weighted_layer_sum', False):
        return {}
    version = re.match(r'(\d+)\.(\d+)', str(config.get('transformers_version', '')))
    old = version is not None and (int(version[1]), int(version[2])) < LAYER_SUM_BEFORE_NORM
    behind = config.flag('tie_last_hidden_states', old)
    return {'layer_sum': True, **({'layer_sum_norm': True} if stable and behind else {})}


def transformer_fields(config: Settings) -> dict[str, Any]:
    """Of ViT, AST and VideoMAE."""
    return {
        **sizes(config, 1e-12),
        'dropout': config.real('hidden_dropout_prob', 0.0),
        'attention_dropout': config.real('attention_probs_dropout_prob', 0.0),
        'patch_size': config.square('patch_size', 16),
    }


def scaling(preprocessor: Settings) -> dict[str, Any]:
    """Mean and deviation with which (x / 255 - mean) / std is what the original makes of bytes x.

    The original computes (x factor - mean) / std, and leaves out the factor or the rest as it is told.
    """
    preprocessor.demand('do_flip_channel_order', False, None)
    preprocessor.demand('do_grayscale', False, None)
    normalize, rescale = preprocessor.flag('do_normalize', True), preprocessor.flag('do_rescale', True)
    factor = 255 * preprocessor.real('rescale_factor', 1 / 255) if rescale else 255.0
    mean: tuple[float, ...] = (0.0,) * 3
    std: tuple[float, ...] = (1.0,) * 3
    if normalize:
        mean, std = preprocessor.channels('image_mean', HALF), preprocessor.channels('image_std', HALF)
    if min(std) <= 0 or factor <= 0:
        raise preprocessor.wrong('rescale_factor' if factor <= 0 else 'image_std', 'numbers above 0')
    if normalize and abs(factor - 1) < 1e-6:
        return {'mean': mean, 'std': std} if preprocessor.values else {}  # else those of the encoder
    return {'mean': tuple(m / factor for m in mean), 'std': tuple(s / factor for s in std)}


def vit_fields(config: Settings, preprocessor: Settings) -> dict[str, Any]:
    config.demand('num_channels', 3)
    return {
        **transformer_fields(config),
        'image_size': config.square('image_size', 224),
        'qkv_bias': config.flag('qkv_bias', True),
        'projector_activation': config.activation('pooler_act', 'tanh'),
        **scaling(preprocessor),
    }


def videomae_fields(config: Settings, preprocessor: Settings) -> dict[str, Any]:
    """Without use_mean_pooling, as pretrained and as fine-tuned from there, the classifier reads the first token.

    There is a norm behind the layers then, and none behind the pooling.
    """
    config.demand('num_channels', 3)
    by_mean = config.flag('use_mean_pooling', True)
    return {
        **transformer_fields(config),
        'image_size': config.square('image_size', 224),
        'num_frames': config.whole('num_frames', 16),
        'tubelet_size': config.whole('tubelet_size', 2),
        'final_norm': not by_mean,
        **({} if by_mean else {'pooling': 'first', 'pool_norm': False}),
        'qkv_bias': config.flag('qkv_bias' if 'qkv_bias' in config else 'qv_bias', True),  # old and new name
        **scaling(preprocessor),
    }


def ast_fields(config: Settings, preprocessor: Settings) -> dict[str, Any]:
    preprocessor.demand('sampling_rate', SAMPLE_RATE)
    fields = {
        **transformer_fields(config),
        'qkv_bias': config.flag('qkv_bias', True),
        'max_length': config.whole('max_length', 1024),
        'num_bands': config.whole('num_mel_bins', 128),
        'time_stride': config.whole('time_stride', 10),
        'frequency_stride': config.whole('frequency_stride', 10),
    }
    fields['pool_epsilon'] = fields['epsilon']
    preprocessor.demand('num_mel_bins', fields['num_bands'])
    preprocessor.demand('max_length', fields['max_length'])
    preprocessor.demand('padding_value', 0.0, 0)
    if not preprocessor.flag('do_normalize', True):
        return fields | {'mean': 0.0, 'std': 0.5}  # (x - mean) / (2 std) is x then
    given = {'mean': preprocessor.real('mean', 0.0, least=-math.inf), 'std': preprocessor.real('std', 1.0)}
    if not given['std']:
        raise preprocessor.wrong('std', 'a number above 0')
    return fields | {key: value for key, value in given.items() if key in preprocessor}


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
        *dense('projector', ('classifier.dense', '{p}pooler.dense'), optional='fresh'),
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
        *dense('projector', 'pre_classifier', optional='fresh'),
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
        *dense('projector', ('projector', 'classifier.dense'), optional='field'),
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
    if fields.get('layer_sum'):
        rules.append(('layer_weights', 'layer_weights', 'field'))
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
    if not tokens:
        # VideoMAE has biases of its own beside the dense layers, none for the keys. Some versions of transformers 5,
        # 5.9 and 5.17 among them, gave the dense layers theirs, the keys too (softmax takes those away again).
        for name in ('query', 'key', 'value') if bias else ():
            theirs = (f'{attention}.{name[0]}_bias', f'{attention}.{name}.bias')
            rules.append((f'{layer}/attention/{name}/bias', theirs, 'field' if name == 'key' else ''))
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
    by_mean = fields.get('pool_norm', True)
    last = norm('pool_norm', 'fc_norm', optional='fresh') if by_mean else norm('norm', '{p}layernorm')
    return patch_rules(fields, last=last)


TOKENS = ('class_token', 'distillation_token')
WORDS, PATCHES = 'embeddings.word_embeddings.weight', 'embeddings.patch_embeddings.projection.weight'
WAVE = 'feature_projection.projection.weight'
# By model_type of config.json.
FAMILIES = {
    'bert': Family('bert', 'bert.', WORDS, bert_fields, bert_rules),
    'roberta': Family('roberta', 'roberta.', WORDS, bert_fields, bert_rules),
    'xlm-roberta': Family('roberta', 'roberta.', WORDS, bert_fields, bert_rules),
    'camembert': Family('roberta', 'roberta.', WORDS, bert_fields, bert_rules),
    'data2vec-text': Family('roberta', 'data2vec_text.', WORDS, bert_fields, bert_rules),
    'distilbert': Family('distilbert', 'distilbert.', WORDS, distilbert_fields, distilbert_rules),
    'wav2vec2': Family('wav2vec2', 'wav2vec2.', WAVE, wav2vec2_fields, wav2vec2_rules),
    'hubert': Family('hubert', 'hubert.', WAVE, wav2vec2_fields, wav2vec2_rules),
    'unispeech': Family('wav2vec2', 'unispeech.', WAVE, wav2vec2_fields, wav2vec2_rules),
    'unispeech-sat': Family('wav2vec2', 'unispeech_sat.', WAVE, wav2vec2_fields, wav2vec2_rules),
    'vit': Family('vit', 'vit.', PATCHES, vit_fields, vit_rules),
    'audio-spectrogram-transformer': Family('ast', 'audio_spectrogram_transformer.', PATCHES, ast_fields, ast_rules),
    'videomae': Family('videomae', 'videomae.', PATCHES, videomae_fields, videomae_rules),
}
