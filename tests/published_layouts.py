"""Random tiny folders in the layouts of published emotion checkpoints, and what PyTorch's original says of an input.

Names of files, of tensors, and the settings are those of the published folders; sizes and numbers are not.
"""

import json
from pathlib import Path

import numpy as np

from tests.golden import make_transformers as golden

SMALL = golden.SMALL
# A frame every 320 samples, as the originals: a second of sound is 50 frames.
WAVE = {**golden.WAVE, 'conv_stride': (40, 8), 'conv_kernel': (60, 10), 'classifier_proj_size': 5}
LARGE = golden.LARGE
WORDS = ['i', 'am', 'so', 'glad', 'angry', 'today', 'what', 'a', 'film', ',', '.', '2', 'of', '3', 'love', 'paris']
TEXT = {'max_position_embeddings': 50, 'layer_norm_eps': 1e-5, 'type_vocab_size': 1, 'pad_token_id': 1}
FER = ['angry', 'disgust', 'fear', 'happy', 'neutral', 'sad', 'surprise']
EKMAN = ['anger', 'disgust', 'fear', 'joy', 'neutral', 'sadness', 'surprise']
GO = ['admiration', 'amusement', 'anger', 'joy', 'neutral']
SUPERB = ['neu', 'hap', 'ang', 'sad']
VAD = ['arousal', 'dominance', 'valence']
MULTI = {'problem_type': 'multi_label_classification'}
SUM = {'use_weighted_layer_sum': True}
PICTURE = {'image_size': 16, 'patch_size': 8}
# name: class of transformers, its configuration, labels, what it reads
LAYOUTS = {
    'superb_wav2vec2': ('Wav2Vec2ForSequenceClassification', {**WAVE, **SUM}, SUPERB, 'sound'),
    'superb_hubert_large': ('HubertForSequenceClassification', {**WAVE, **LARGE, **SUM}, SUPERB, 'sound'),
    'emotion_english_distilroberta': ('RobertaForSequenceClassification', {**SMALL, **TEXT}, EKMAN, 'bpe'),
    'roberta_go_emotions': ('RobertaForSequenceClassification', {**SMALL, **TEXT, **MULTI}, GO, 'bpe'),
    'distilbert_emotion': (
        'DistilBertForSequenceClassification',
        {'dim': 8, 'n_layers': 1, 'n_heads': 2, 'hidden_dim': 12, 'max_position_embeddings': 32},
        EKMAN[:6],
        'words',
    ),
    'bert_emotion': ('BertForSequenceClassification', {**SMALL, 'max_position_embeddings': 32}, EKMAN[:6], 'words'),
    'vit_face_expression': ('ViTForImageClassification', {**SMALL, **PICTURE}, FER, 'pictures'),
    'audeering': ('', {**WAVE, **LARGE, 'problem_type': 'regression', 'pooling_mode': 'mean'}, VAD, 'sound'),
    # The families that differ by name only.
    'xlm_roberta': ('XLMRobertaForSequenceClassification', {**SMALL, **TEXT}, EKMAN, 'bpe'),
    'camembert': ('CamembertForSequenceClassification', {**SMALL, **TEXT}, EKMAN, 'bpe'),
    'data2vec_text': ('Data2VecTextForSequenceClassification', {**SMALL, **TEXT}, EKMAN, 'bpe'),
    'unispeech': ('UniSpeechForSequenceClassification', WAVE, SUPERB, 'sound'),
    'unispeech_sat': ('UniSpeechSatForSequenceClassification', {**WAVE, **SUM}, SUPERB, 'sound'),
    'unispeech_sat_large': ('UniSpeechSatForSequenceClassification', {**WAVE, **LARGE, **SUM}, SUPERB, 'sound'),
}


def audeering(config):
    """EmotionModel of audeering/wav2vec2-large-robust-12-ft-emotion-msp-dim, as its model card gives it."""
    import torch
    from transformers.models.wav2vec2.modeling_wav2vec2 import Wav2Vec2Model, Wav2Vec2PreTrainedModel

    class RegressionHead(torch.nn.Module):
        def __init__(self, config):
            super().__init__()
            self.dense = torch.nn.Linear(config.hidden_size, config.hidden_size)
            self.dropout = torch.nn.Dropout(config.final_dropout)
            self.out_proj = torch.nn.Linear(config.hidden_size, config.num_labels)

        def forward(self, features):
            return self.out_proj(self.dropout(torch.tanh(self.dense(self.dropout(features)))))

    class Wav2Vec2ForSpeechClassification(Wav2Vec2PreTrainedModel):
        def __init__(self, config):
            super().__init__(config)
            self.wav2vec2 = Wav2Vec2Model(config)
            self.classifier = RegressionHead(config)
            self.post_init()

        def forward(self, input_values):
            return self.classifier(self.wav2vec2(input_values)[0].mean(dim=1))

    return Wav2Vec2ForSpeechClassification(config)


def build(name, seed=0):
    """The original, small and random, without dropout; its biases and norms are neither 0 nor 1."""
    import torch
    import transformers

    kind, fields, labels, reads = LAYOUTS[name]
    numbered = {'id2label': dict(enumerate(labels)), 'label2id': {label: n for n, label in enumerate(labels)}}
    vocabulary = {'vocab_size': len(vocabulary_of(reads))} if reads in ('bpe', 'words') else {}
    torch.manual_seed(seed)
    if kind:
        model_class = getattr(transformers, kind)
        model = model_class(model_class.config_class(**{**fields, **numbered, **vocabulary}))
    else:
        model = audeering(transformers.Wav2Vec2Config(**{**fields, **numbered}))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_((0.3 if parameter.ndim == 1 else 0.25) * torch.randn_like(parameter))
    return model.eval()


def write(folder, name, seed=0):
    """The folder as it would be downloaded; returns the original."""
    model = build(name, seed)
    golden.save(model, folder)
    folder, reads = Path(folder), LAYOUTS[name][3]
    if reads == 'sound':
        settings = {'do_normalize': True, 'feature_size': 1, 'padding_value': 0.0, 'sampling_rate': 16000}
        settings |= {'feature_extractor_type': 'Wav2Vec2FeatureExtractor', 'return_attention_mask': name == 'audeering'}
        (folder / 'preprocessor_config.json').write_text(json.dumps(settings))
    elif reads == 'pictures':
        settings = {'do_normalize': True, 'do_rescale': True, 'do_resize': True, 'rescale_factor': 1 / 255}
        settings |= {'image_mean': [0.5] * 3, 'image_std': [0.5] * 3, 'size': {'height': 16, 'width': 16}}
        (folder / 'preprocessor_config.json').write_text(json.dumps(settings))
    else:
        write_tokenizer(folder, reads)
    return model


def vocabulary_of(reads):
    if reads == 'words':
        return ['[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]', *WORDS]
    from tokenizers.pre_tokenizers import ByteLevel

    return ['<s>', '<pad>', '</s>', '<unk>', '<mask>', *sorted(ByteLevel.alphabet())]


def write_tokenizer(folder, reads):
    """Word pieces, or bytes as RoBERTa's without a merge."""
    words = vocabulary_of(reads)
    if reads == 'words':
        (folder / 'vocab.txt').write_text('\n'.join(words) + '\n')
        (folder / 'tokenizer_config.json').write_text(
            json.dumps({'tokenizer_class': 'BertTokenizer', 'do_lower_case': True})
        )
        return
    (folder / 'vocab.json').write_text(json.dumps({word: n for n, word in enumerate(words)}))
    (folder / 'merges.txt').write_text('#version: 0.2\n')
    (folder / 'tokenizer_config.json').write_text(json.dumps({'tokenizer_class': 'RobertaTokenizer'}))


def scores(name, model, inputs):
    """What a user of the original gets of one clip: {label: probability or value}.

    inputs: samples (S,) in [-1, 1), token ids (T,), or a picture (H, W, 3) of bytes.
    """
    import torch
    import transformers

    _, fields, labels, reads = LAYOUTS[name]
    with torch.no_grad():
        if reads == 'sound':
            prepare = transformers.Wav2Vec2FeatureExtractor(do_normalize=True)
            x = torch.from_numpy(prepare(inputs, sampling_rate=16000, return_tensors='np')['input_values'])
        elif reads == 'pictures':
            x = torch.from_numpy((inputs.astype(np.float32) / 255 - 0.5) / 0.5).permute(2, 0, 1)[None]
        else:
            x = torch.from_numpy(np.asarray(inputs, np.int64))[None]
        found = model(x)
        logits = (found if isinstance(found, torch.Tensor) else found.logits)[0]
        if fields.get('problem_type') == 'multi_label_classification':
            logits = torch.sigmoid(logits)
        elif fields.get('problem_type') != 'regression':
            logits = torch.softmax(logits, -1)
    return dict(zip(labels, logits.tolist(), strict=True))
