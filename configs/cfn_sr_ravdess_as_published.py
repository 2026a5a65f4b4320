"""CFN-SR as its published code runs it: not an honest estimate, for comparison with the paper only.

    python -m data_prep.ravdess --source <RAVDESS> --output data/ravdess_mfcc_frames --vision frames --crop landmarks \\
      --landmarks <FacialTracking> --frame_choice starts
    python -m mmer_jax.main --config=configs/cfn_sr_ravdess_as_published.py

The epoch is chosen on the test fold; five folds of four consecutive actors (with all 24, actors 21 to 24 are never
tested); attention maps are summed over the batch, so that a prediction depends on its neighbours; the video network
lacks the ReLU behind its first normalisation; a causal mask; frames are taken at the beginning of 30 equal parts, and
cropped and mirrored one by one. Its faces are cut out of frames shrunk to 224 x 224; ours of whole ones.

Ours: not run: the videos of all 24 actors could not be obtained.
"""

from ml_collections import ConfigDict

from configs import cfn_sr_ravdess, datasets


def get_config(variant: str = '') -> ConfigDict:
    config = cfn_sr_ravdess.get_config('smoke' if variant == 'smoke' else '')
    if variant not in ('', 'smoke'):
        raise ValueError(f'configs/cfn_sr_ravdess_as_published.py has no variant {variant!r}; it has smoke')
    config.name = 'cfn_sr_ravdess_as_published'
    config.protocol.options = ConfigDict(datasets.RAVDESS_AS_PUBLISHED)
    model = config.model.to_dict()
    model |= {'causal': True, 'attention_summed_over_batch': True}
    model['vision']['stem_activation'] = False
    config.model = ConfigDict(model)
    config.data.augment = (
        ('random_resized_crop', {'modality': 'vision', 'scale': (0.8, 1.4), 'per': 'frame'}),
        ('horizontal_flip', {'modality': 'vision', 'per': 'frame'}),
    )
    return config
