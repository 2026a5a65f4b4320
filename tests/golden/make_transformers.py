"""Writes transformers.npz: tiny models of all eight kinds by Hugging Face transformers, their states and gradients.

    python -m tests.golden.make_transformers     (needs torch; tests/test_transformers_parity.py reads the file without)

Weights are values that float16 holds exactly, under the names that the files on disk have; everything is computed in
float32. The gradient is that of sum(state x cotangent) over the valid steps of the last state, in the names of the
weights. `pooled` is what the original's last dense layer reads, or its pooler's output. wav2vec 2.0 base is run clip
by clip ('wav2vec2'), for its group norm sees padding, and padded ('wav2vec2_padded').
"""

import json
import tempfile
from pathlib import Path

import numpy as np

PATH = Path(__file__).with_name('transformers.npz')
SMALL = {'hidden_size': 8, 'num_hidden_layers': 1, 'num_attention_heads': 2, 'intermediate_size': 12}
WAVE = {
    **SMALL,
    'conv_dim': (6, 4),
    'conv_stride': (3, 2),
    'conv_kernel': (5, 3),
    'num_conv_pos_embeddings': 4,
    'num_conv_pos_embedding_groups': 2,
    'num_feat_extract_layers': 2,
    'classifier_proj_size': 5,
}
TEXT = {'vocab_size': 20, 'max_position_embeddings': 12}
LARGE = {'feat_extract_norm': 'layer', 'conv_bias': True, 'do_stable_layer_norm': True, 'num_hidden_layers': 2}
DISTIL = {'dim': 8, 'n_layers': 1, 'n_heads': 2, 'hidden_dim': 12, **TEXT, 'activation': 'relu'}
SPECTROGRAM = {'num_mel_bins': 14, 'max_length': 20, 'patch_size': 8, 'frequency_stride': 5, 'time_stride': 5}
CLIP = {'image_size': 16, 'patch_size': 8, 'num_frames': 4}
DECODER = {
    'patch_size': 4,
    'use_mean_pooling': False,
    'decoder_hidden_size': 8,
    'decoder_num_hidden_layers': 1,
    'decoder_num_attention_heads': 2,
    'decoder_intermediate_size': 8,
}
# case: class of transformers, its configuration, kind of input
CASES = {
    'bert': ('BertForSequenceClassification', {**SMALL, 'num_hidden_layers': 2, **TEXT}, 'tokens'),
    'roberta': (
        'RobertaForSequenceClassification',
        {**SMALL, **TEXT, 'max_position_embeddings': 14, 'type_vocab_size': 1, 'layer_norm_eps': 1e-5},
        'tokens',
    ),
    'distilbert': ('DistilBertForSequenceClassification', DISTIL, 'tokens'),
    'wav2vec2': ('Wav2Vec2ForSequenceClassification', WAVE, 'clips'),
    'wav2vec2_padded': ('Wav2Vec2Model', WAVE, 'waves'),
    'wav2vec2_large': ('Wav2Vec2ForPreTraining', {**WAVE, **LARGE, 'num_codevectors_per_group': 4}, 'waves'),
    'hubert': ('HubertModel', {**WAVE, 'feat_proj_layer_norm': False}, 'clips'),
    'hubert_large': ('HubertForSequenceClassification', {**WAVE, **LARGE}, 'waves'),
    'wav2vec2_sum': ('Wav2Vec2ForSequenceClassification', {**WAVE, 'use_weighted_layer_sum': True}, 'clips'),
    'hubert_sum': ('HubertForSequenceClassification', {**WAVE, **LARGE, 'use_weighted_layer_sum': True}, 'waves'),
    'vit': ('ViTForImageClassification', {**SMALL, 'image_size': 16, 'patch_size': 8}, 'pictures'),
    'vit_pooler': ('ViTModel', {**SMALL, 'image_size': 16, 'patch_size': 4, 'pooler_act': 'relu'}, 'pictures'),
    'ast': ('ASTForAudioClassification', {**SMALL, **SPECTROGRAM}, 'spectrograms'),
    'videomae': ('VideoMAEForVideoClassification', {**SMALL, **CLIP, 'num_hidden_layers': 2}, 'videos'),
    'videomae_first': ('VideoMAEForVideoClassification', {**SMALL, **CLIP, 'use_mean_pooling': False}, 'videos'),
    'videomae_pretraining': ('VideoMAEForPreTraining', {**SMALL, **CLIP, **DECODER}, 'videos'),
}
# The last dense layer of the classifiers; '': the pooler's output. The others have no pooling.
HEADS = {
    'bert': 'classifier',
    'roberta': 'classifier.out_proj',
    'distilbert': 'classifier',
    'wav2vec2': 'classifier',
    'wav2vec2_sum': 'classifier',
    'hubert_large': 'classifier',
    'hubert_sum': 'classifier',
    'vit': 'classifier',
    'vit_pooler': '',
    'ast': 'classifier.dense',
    'videomae': 'classifier',
    'videomae_first': 'classifier',
}
LENGTHS = {'tokens': (7, 4, 10), 'clips': (60, 41, 35), 'waves': (60, 41, 35), 'spectrograms': (20, 20, 20)}
LENGTHS |= {'pictures': (1, 1, 1), 'videos': (4, 4, 4)}


def inputs(kind):
    """x, and its mask with unequal lengths where the original takes a mask."""
    generator, lengths = np.random.default_rng(0), np.array(LENGTHS[kind])
    mask = np.arange(max(lengths))[None] < lengths[:, None]
    if kind == 'tokens':
        return np.where(mask, generator.integers(4, 20, mask.shape), 0).astype(np.int32), mask
    shape = {'spectrograms': (20, 14), 'pictures': (1, 16, 16, 3), 'videos': (4, 16, 16, 3)}.get(kind, (max(lengths),))
    x = generator.standard_normal((3, *shape)).astype(np.float32)
    return np.where(mask.reshape(*mask.shape, *(1,) * (x.ndim - 2)), x, 0).astype(np.float32), mask


def cotangent(shape):
    return np.random.default_rng(1).standard_normal(shape).astype(np.float32)


def build(case, seed=0):
    """A small model without dropout, its biases and norms neither 0 nor 1, rounded to float16."""
    import torch
    import transformers

    name, fields, _ = CASES[case]
    torch.manual_seed(seed)
    model_class = getattr(transformers, name)
    model = model_class(model_class.config_class(**fields)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            scale = 0.2 if parameter.ndim == 1 else 0.1
            parameter.add_(scale * torch.randn_like(parameter)).copy_(parameter.half().float())
    return model


def _run(case, network, x, mask):
    """The network, the whole one or its encoder alone, on a padded batch."""
    import torch

    kind = CASES[case][2]
    x, mask = torch.from_numpy(x), torch.from_numpy(mask)
    if kind == 'tokens':
        pad = 1 if case == 'roberta' else 0
        ids = torch.where(mask, x.long(), pad)
        return network(input_ids=ids, attention_mask=mask.long(), output_hidden_states=True)
    if kind == 'waves':
        return network(x, attention_mask=mask.long(), output_hidden_states=True)
    if kind == 'pictures':
        return network(x[:, 0].permute(0, 3, 1, 2), output_hidden_states=True)
    if kind == 'videos':
        return network(x.permute(0, 1, 4, 2, 3), output_hidden_states=True)
    return network(x, output_hidden_states=True)


def _batches(case):
    """All rows at once, or of 'clips' row by row without padding."""
    x, mask = inputs(CASES[case][2])
    if CASES[case][2] != 'clips':
        return [(x, mask)]
    return [(x[row : row + 1, :length], mask[row : row + 1, :length]) for row, length in enumerate(mask.sum(1))]


def pooled(case, model):
    """What the classifier's last layer reads, or the pooler's output, float32 (B, D); None where there is neither."""
    import torch

    if case not in HEADS:
        return None
    read = []
    with torch.no_grad():
        if HEADS[case]:
            head = model.get_submodule(HEADS[case])
            hook = head.register_forward_pre_hook(lambda _, given: read.append(given[0]))
            for x, mask in _batches(case):
                _run(case, model, x, mask)
            hook.remove()
        else:
            read = [_run(case, model, x, mask).pooler_output for x, mask in _batches(case)]
    return torch.cat(read).numpy()


def reference(case, model):
    """Hidden states (layers + 1, B, T, D), 0 where padded, and the model with its gradient in place of its weights."""
    import torch

    if CASES[case][2] == 'clips':
        rows = [_run(case, model.base_model, x, mask).hidden_states for x, mask in _batches(case)]
        steps = max(states[0].shape[1] for states in rows)
        states = [
            torch.cat([torch.nn.functional.pad(h, (0, 0, 0, steps - h.shape[1])) for h in level])
            for level in zip(*rows, strict=True)
        ]
    else:
        ((x, mask),) = _batches(case)
        outputs = _run(case, model.base_model, x, mask)
        states = [*outputs.hidden_states[:-1], outputs.last_hidden_state]
    valid = torch.from_numpy(valid_steps(case, states[-1].shape[1]))
    states = [torch.where(valid[..., None], h, 0) for h in states]
    model.zero_grad()
    (states[-1] * torch.from_numpy(cotangent(states[-1].shape))).sum().backward()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.zeros_like(parameter) if parameter.grad is None else parameter.grad)
    return np.stack([h.detach().numpy() for h in states])


def valid_steps(case, steps):
    """(B, T) of the hidden states."""
    lengths = np.array(LENGTHS[CASES[case][2]])
    if CASES[case][2] in ('clips', 'waves'):
        for kernel, stride in zip(WAVE['conv_kernel'], WAVE['conv_stride'], strict=True):
            lengths = (lengths - kernel) // stride + 1
    elif CASES[case][2] != 'tokens':
        lengths = np.full(3, steps)
    return np.arange(steps)[None] < lengths[:, None]


def save(model, folder):
    """model.save_pretrained without its progress bar; the arrays by their names on disk."""
    from safetensors.numpy import load_file
    from transformers.utils import logging

    logging.disable_progress_bar()
    model.save_pretrained(folder)
    return load_file(Path(folder) / 'model.safetensors')


def entries(case):
    """What the file holds of one case."""
    model = build(case)
    arrays = {'pooled': pooled(case, model)} if case in HEADS else {}
    with tempfile.TemporaryDirectory() as folder:
        weights = save(model, folder)
        config = json.loads((Path(folder) / 'config.json').read_text())
        arrays['states'] = reference(case, model)
        gradient = save(model, folder)
    arrays['config'] = np.array(json.dumps(config))
    arrays['names'] = np.array(list(weights))
    arrays['shapes'] = np.array([(*w.shape, *(0,) * (5 - w.ndim)) for w in weights.values()], np.int16)
    arrays['weights'] = np.concatenate([w.ravel() for w in weights.values()]).astype(np.float16)
    arrays['gradient'] = np.concatenate([gradient[name].ravel() for name in weights])
    return {f'{case}/{name}': array for name, array in arrays.items()}


def main():
    import torch
    import transformers

    versions = f'transformers {transformers.__version__}, torch {torch.__version__}'
    arrays = {'note': np.array(f'{versions}, written by tests/golden/make_transformers.py')}
    for case in CASES:
        arrays |= entries(case)
    np.savez_compressed(PATH, **arrays)


if __name__ == '__main__':
    main()
