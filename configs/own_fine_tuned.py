"""Your own clips: a pretrained encoder of one modality, fine-tuned; the variant says which.

    python -m data_prep.convert_weights huggingface --source <wav2vec2-base> --output wav2vec2-base
    python -m data_prep.clips --csv labels.csv --media FOLDER --output data/mine --audio waveform --vision none
    python -m mmer_jax.main --config=configs/own_fine_tuned.py:wav2vec2 --config.data.directory=data/mine

| variant | data | weights |
|---|---|---|
| wav2vec2 (default), hubert | --audio waveform --duration 10 | wav2vec2-base, hubert-base |
| bert, roberta, distilbert, minilm | --tokenizer NAME, that of the weights | bert-base-uncased, roberta-base, ... |
| vit | --vision frames --frames 1 --size 224 | vit-base-patch16-224-in21k |
| videomae | --vision frames --frames 16 --size 224 | videomae-base-finetuned-kinetics |

Others of the same families: --config.pretrained.encoder=NAME. Classes, loss, metrics and folds follow the data.

Ours: not run: it is for data of yours.
"""

from ml_collections import ConfigDict

from configs import datasets, encoders
from configs.base import get_base

VARIANTS = {  # variant: modality, encoder, weights
    'wav2vec2': ('audio', encoders.WAV2VEC2, encoders.WAV2VEC2_WEIGHTS),
    'hubert': ('audio', encoders.HUBERT, encoders.HUBERT_WEIGHTS),
    'bert': ('text', encoders.BERT, 'bert-base-uncased'),
    'roberta': ('text', encoders.ROBERTA, 'roberta-base'),
    'distilbert': ('text', encoders.DISTILBERT, 'distilbert-base-uncased'),
    'minilm': ('text', encoders.MINILM, encoders.MINILM_WEIGHTS),
    'vit': ('vision', encoders.VIT, encoders.VIT_WEIGHTS),
    'videomae': ('vision', encoders.VIDEOMAE, encoders.VIDEOMAE_WEIGHTS),
}
RATES = {'text': 2e-5, 'audio': 3e-5, 'vision': 5e-5}  # those of the paper on pretrained transformers, section 3.2
LONGEST = {'text': 512, 'audio': 160000}


def get_config(variant: str = '') -> ConfigDict:
    config = get_base('own_fine_tuned', variant, tuple(VARIANTS))
    datasets.own(config)
    modality, encoder, weights = VARIANTS[variant or 'wav2vec2']
    config.modalities = (modality,)
    config.data.normalize = ()
    config.data.batch_size = 8
    config.data.max_shapes = 3
    config.data.max_length = ConfigDict({m: n for m, n in LONGEST.items() if m == modality})
    config.model = ConfigDict({'name': 'unimodal', 'encoder': encoder})
    config.pretrained = ConfigDict({'encoder': weights})
    config.optimizer.name = 'adamw'
    config.optimizer.learning_rate = 2e-4 if weights == encoders.MINILM_WEIGHTS else RATES[modality]
    config.optimizer.schedule = 'linear'
    config.optimizer.warmup = 0.1
    config.optimizer.weight_decay = 0.01
    config.optimizer.no_decay = datasets.NO_DECAY
    config.epochs = 10
    return config
