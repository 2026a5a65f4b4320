r"""VideoMAE fine-tuned on the pictures of IEMOCAP, four emotions.

    python -m data_prep.iemocap --source <IEMOCAP> --output data/iemocap_raw --tokenizer bert-base-uncased
    python -m data_prep.convert_weights huggingface --source <videomae-base-finetuned-kinetics> \
      --output videomae-base-finetuned-kinetics
    python -m mmer_jax.main --config=configs/videomae_iemocap.py

Settings of Babaali and Shayaninasab (2023); their accuracy: 0.38 (Table 3) and 0.3322 over five folds (Table 4).
16 frames at equal distances over the utterance, of the speaker's half of the screen; the paper shows the whole screen
(data_prep.iemocap --screen whole). Each clip is mirrored with a chance of one half. The paper says 30 frames a second
and PyTorchVideo, which fits the public recipe for this network: a random clip of 2.13 s (16 frames, every fourth) in
training, videomae-base, its first token. Here the frames span the whole utterance, so that none of it is unseen and a
test needs no chance, and the features are the normalised mean that the weights were fine-tuned with.
The weights are those of MCG-NJU/videomae-base-finetuned-kinetics; the paper does not say which it took. Those of
MCG-NJU/videomae-base, pretrained alone (--config.pretrained.encoder=videomae-base), load too; as in Hugging Face's
classifier the first token is read then, in place of the normalised mean.

Ours: not run: neither IEMOCAP nor the checkpoint could be obtained.
"""

from ml_collections import ConfigDict

from configs import datasets, encoders
from configs.base import get_base


def get_config(variant: str = '') -> ConfigDict:
    config = get_base('videomae_iemocap', variant, ('smoke', 'split'))
    datasets.iemocap_raw(config, 'vision')
    config.model = ConfigDict({'name': 'unimodal', 'encoder': encoders.VIDEOMAE})
    config.pretrained = ConfigDict({'encoder': encoders.VIDEOMAE_WEIGHTS})
    return datasets.smoke(config, encoder={**encoders.VIDEOMAE, **encoders.TINY_VIDEO})
