"""What the configs of one data set share: where it lies, its labels' loss, what selects and what is shown."""

from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

MODALITIES = ('text', 'audio', 'vision')
SENTIMENT = ('acc7_round', 'acc2_non0', 'f1_non0', 'mae', 'corr')
EMOTIONS = ('happy', 'sad', 'angry', 'neutral')
IEMOCAP = tuple(f'{metric}_{emotion}' for emotion in EMOTIONS for metric in ('accuracy', 'weighted_f1'))
TASK_LOSS = {'mosi': 'l1', 'mosei': 'l1', 'iemocap': 'binary_cross_entropy', 'mosi_text_audio': 'mse'}
# Biases and the scales of norms, which Hugging Face's Trainer leaves out of the weight decay.
NO_DECAY = ('/bias$', '/scale$')
SOURCE = 'MFSA (Yang et al. 2022), {}'


def use(config: ConfigDict, dataset: str) -> None:
    """Unaligned sequences of CMU-MOSI, CMU-MOSEI or IEMOCAP as shard directories written by data_prep.mult_pickle.

    Audio and vision are brought to mean 0 and deviation 1 by the training split: their values span five orders. The
    epoch is chosen by MAE, of emotions by macro F1, for all models; the papers do not say by what (MulT's code: loss).
    """
    config.modalities = MODALITIES
    config.data.directory = f'data/{dataset}'
    config.data.normalize = ('audio', 'vision')
    config.data.max_shapes = 4
    config.losses = ConfigDict({TASK_LOSS[dataset]: 1.0})
    if dataset == 'iemocap':
        config.headline = (*IEMOCAP, 'uar', 'macro_f1')
        config.selection.metric = 'macro_f1'
    else:
        config.headline = (*SENTIMENT, 'uar_non0', 'macro_f1_non0')
        config.selection.metric = 'mae'
    if dataset == 'mosi_text_audio':
        config.modalities = ('text', 'audio')
        config.data.normalize = ('audio',)


def synthetic(config: ConfigDict) -> None:
    """The embedded data (data_prep/synthetic.py) with one budget of steps and one optimiser for every model."""
    config.modalities = MODALITIES
    config.data.directory = 'data/synthetic'
    config.data.batch_size = 64
    config.data.max_shapes = 1
    config.losses = ConfigDict({'cross_entropy': 1.0})
    config.optimizer.learning_rate = 1e-3
    config.optimizer.clip_norm = 1.0
    config.selection.metric = 'accuracy'
    config.epochs = 15


def mosi_text_audio(config: ConfigDict) -> None:
    """CMU-MOSI's text (GloVe and indicators) and one audio vector a clip, written by data_prep.mosi.

    One way to train every model, chosen on the validation split with MFSA: little text and 1,272 input features want
    strong decoupled weight decay, an averaged model and the squared error, whose optimum is less noisy than L1's.
    """
    use(config, 'mosi_text_audio')
    config.data.batch_size = 32
    config.data.max_shapes = 1
    config.data.max_length = ConfigDict({'text': 50})
    config.losses = ConfigDict({'mse': 1.0})
    config.optimizer.name = 'adamw'
    config.optimizer.weight_decay = 2.0
    config.optimizer.learning_rate = 1e-3
    config.optimizer.schedule = 'cosine'
    config.optimizer.clip_norm = 1.0
    config.optimizer.average = 0.99
    config.epochs = 16
    config.seeds = 5


def mosi_tokens(config: ConfigDict) -> None:
    """CMU-MOSI's text as token ids and one audio vector a clip, written by data_prep.mosi --tokenizer: fine-tuning.

    Weight decay takes in biases and norms, as it did where README's rows were measured. Hugging Face's Trainer leaves
    them out: --config.optimizer.no_decay="('/bias$','/scale$')".
    """
    use(config, 'mosi_text_audio')
    config.data.directory = 'data/mosi_tokens'
    config.data.batch_size = 32
    config.data.max_shapes = 3
    config.data.max_length = ConfigDict({'text': 128})
    config.data.normalize = ()
    config.losses = ConfigDict({'l1': 1.0})
    config.optimizer.name = 'adamw'
    config.optimizer.learning_rate = 1e-4
    config.optimizer.schedule = 'linear'
    config.optimizer.warmup = 0.1
    config.optimizer.weight_decay = 0.01
    config.optimizer.clip_norm = 1.0
    config.epochs = 5
    config.seeds = 5


def layerwise(config: ConfigDict) -> None:
    """Rates before and after a fine-tuned MiniLM: 2e-4 for the model, for an encoder layer 0.8 of the one above it."""
    config.optimizer.learning_rate = 2e-4
    config.optimizer.layer_decay = 0.8


def longer(config: ConfigDict) -> None:
    """The variant `:longer` of MiniLM's configs: eight epochs, averaged parameters, an encoder layer at 0.8 of the
    rate of the one above it. docs/reproduce_transformers.md lists what else was tried on the validation split.
    """
    layerwise(config)
    config.epochs = 8
    config.optimizer.average = 0.99


def after_reviews(config: ConfigDict, path: str) -> None:
    """The variant `:reviews` of MiniLM's configs: as `:longer`, and the encoder at `path` comes from a run that was
    fine-tuned on rated review sentences before (docs/reproduce_transformers.md, "Review sentences first").
    """
    longer(config)
    config.start_from = ConfigDict({path: 'runs/minilm_reviews:encoder'})


def own(config: ConfigDict) -> None:
    """Data of one's own, written by data_prep.clips: the records decide (mmer_jax/settings/follow_data.py)."""
    config.data.directory = 'data/mine'
    config.data.normalize = ('auto',)
    config.data.max_shapes = 3
    config.protocol.name = 'by_what_is_known'
    config.losses = ConfigDict({'task': 1.0})
    config.optimizer.clip_norm = 1.0
    config.selection.metric = 'auto'
    config.headline = ('auto',)


def ravdess_folds(config: ConfigDict) -> None:
    """Four actors, two men and two women, are tested in turn; of the others two, a man and a woman, validate.

    All 24 actors make six folds with 20 that are not tested, the 5:1 of CFN-SR; actors 1 to 20 make five.
    """
    config.protocol.name = 'leave_speakers_out'
    config.protocol.options = ConfigDict({'speakers_per_fold': 4, 'validation_speakers': 2, 'balance': 'gender'})


# As CFN-SR's code: the epoch is chosen on the tested group, and of six groups of 24 actors the last is never tested.
RAVDESS_AS_PUBLISHED = {'speakers_per_fold': 4, 'max_folds': 5, 'selection': 'test'}


def ravdess_video(config: ConfigDict) -> None:
    """RAVDESS speech as 212 MFCC frames and 30 face crops a clip, written by data_prep.ravdess --vision frames.

    CFN-SR's optimiser, batch and epochs; pictures are cropped and mirrored once a clip, not frame by frame.
    """
    config.modalities = ('audio', 'vision')
    config.data.directory = 'data/ravdess_mfcc_frames'
    config.data.batch_size = 16
    config.data.max_shapes = 1
    config.data.threads = 2
    config.data.augment = (
        ('random_resized_crop', {'modality': 'vision', 'scale': (0.8, 1.0)}),
        ('horizontal_flip', {'modality': 'vision'}),
    )
    ravdess_folds(config)
    config.losses = ConfigDict({'cross_entropy': 1.0})
    config.optimizer.learning_rate = 1e-3
    config.selection.metric = 'accuracy'
    config.epochs = 70


# Sizes of the 3-D network for :smoke runs; its counterpart in data_prep/synthetic.py has frames of 32 x 32.
TINY_RESNEXT3D = {
    'name': 'resnext3d', 'num_frames': 4, 'block_counts': (1, 1, 1, 1), 'cardinality': 2, 'planes': (32, 32, 32, 32),
    'stem_features': 4,
}  # fmt: skip


def ravdess_openface(config: ConfigDict) -> None:
    """RAVDESS speech as MFCC sequences and one vector of action units a clip, written by data_prep.ravdess_openface."""
    config.modalities = ('audio', 'vision')
    config.data.directory = 'data/ravdess_openface'
    config.data.batch_size = 32
    config.data.max_shapes = 1
    config.data.normalize = ('audio', 'vision')
    ravdess_folds(config)
    config.losses = ConfigDict({'cross_entropy': 1.0})
    config.optimizer.learning_rate = 1e-3
    config.selection.metric = 'accuracy'
    config.epochs = 30
    config.seeds = 5


def ravdess_log_mel(config: ConfigDict) -> None:
    """RAVDESS speech as 201 frames of 64 log-mel bands, written by data_prep.ravdess --features log_mel, and one way to
    train networks on them, chosen as docs/reproduce_cfn_sr.md says. With action units: ravdess_openface_log_mel.
    """
    config.modalities = ('audio',)
    config.data.directory = 'data/ravdess_log_mel_64'
    config.data.batch_size = 32
    config.data.eval_batch_size = 120
    config.data.max_shapes = 1
    config.data.normalize = ('audio',)
    config.data.augment = (
        ('speed', {'modality': 'audio', 'ratio': (0.9, 1.1)}),
        ('time_shift', {'modality': 'audio', 'steps': 10}),
        ('frequency_shift', {'modality': 'audio', 'bins': 2.0}),
        ('gaussian_noise', {'modality': 'audio', 'scale': 0.1}),
        ('time_mask', {'modality': 'audio', 'steps': 20}),
        ('frequency_mask', {'modality': 'audio', 'bins': 10}),
    )
    ravdess_folds(config)
    config.losses = ConfigDict({'cross_entropy': 1.0})
    config.label_smoothing = 0.1
    config.optimizer.name = 'adamw'
    config.optimizer.learning_rate = 2e-3
    config.optimizer.schedule = 'cosine'
    config.optimizer.warmup = 0.1
    config.optimizer.weight_decay = 0.02
    config.optimizer.clip_norm = 1.0
    config.optimizer.average = 0.98
    config.epochs = 45


def ravdess_openface_log_mel(config: ConfigDict) -> None:
    """The same sound and one vector of action units a clip, written by data_prep.ravdess_openface --audio log_mel."""
    ravdess_log_mel(config)
    config.modalities = ('audio', 'vision')
    config.data.directory = 'data/ravdess_openface_log_mel'
    config.data.normalize = ('audio', 'vision')
    config.seeds = 5


def ravdess_waveform(config: ConfigDict) -> None:
    """RAVDESS speech at 16 kHz, written by data_prep.ravdess --features waveform, to fine-tune a speech transformer.

    Rate, batch, weight decay and the cut at 10 s are those of the paper on pretrained transformers (section 3.2), the
    schedule and the clipping are those of Hugging Face's examples, as the paper gives none. Biases and norms do not
    decay, as in Hugging Face's Trainer, which "PyTorch and Transformers functions" probably means. Its evaluation in
    batches of four is not repeated: a batch changes no prediction.
    """
    config.modalities = ('audio',)
    config.data.directory = 'data/ravdess_waveform'
    config.data.batch_size = 8
    config.data.max_shapes = 3
    config.data.max_length = ConfigDict({'audio': 160000})
    ravdess_folds(config)
    config.losses = ConfigDict({'cross_entropy': 1.0})
    config.optimizer.name = 'adamw'
    config.optimizer.learning_rate = 3e-5
    config.optimizer.schedule = 'linear'
    config.optimizer.warmup = 0.1
    config.optimizer.weight_decay = 0.01
    config.optimizer.no_decay = NO_DECAY
    config.optimizer.clip_norm = 1.0
    config.selection.metric = 'accuracy'
    config.epochs = 15


def iemocap_raw(config: ConfigDict, modality: str) -> None:
    """IEMOCAP as token ids, 16 kHz sound and frames, written by data_prep.iemocap, to fine-tune one transformer.

    The settings of the paper on pretrained transformers (section 3.2). Five folds: one session is tested, another one
    validates; the paper leaves open what chose its epochs there. The variant `split` is its first division: sessions 1
    to 3 train, 4 validates, 5 is tested. It gives no schedule: the rate falls linearly after a short rise.
    Biases and norms do not decay, as in Hugging Face's Trainer, which its "Transformers functions" probably are.
    """
    config.modalities = (modality,)
    config.data.directory = 'data/iemocap_raw'
    config.data.batch_size = 32 if modality == 'text' else 8
    config.data.max_shapes = 4
    if modality != 'vision':
        config.data.max_length = ConfigDict({'text': 512} if modality == 'text' else {'audio': 160000})
    if config.variant == 'split':
        config.protocol.name = 'official_split'
    else:
        config.protocol.name = 'leave_sessions_out'
        config.protocol.options = ConfigDict({'validation_sessions': 1})
    config.losses = ConfigDict({'cross_entropy': 1.0})
    config.optimizer.name = 'adamw'
    config.optimizer.learning_rate = {'text': 2e-5, 'audio': 3e-5, 'vision': 5e-5}[modality]
    config.optimizer.schedule = 'linear'
    config.optimizer.warmup = 0.1
    config.optimizer.weight_decay = 0.01
    config.optimizer.no_decay = NO_DECAY
    config.optimizer.clip_norm = 1.0
    config.selection.metric = 'accuracy'
    config.epochs = {'text': 20, 'audio': 15, 'vision': 10}[modality]
    if modality == 'vision':
        config.data.augment = (('horizontal_flip', {'modality': 'vision'}),)


# Epochs after which the report stopped (Table 4). The cell of Simple3D on both is empty: taken is the one above it.
CREMA_D_EPOCHS = {
    'simple3d': {'audio': 36, 'vision': 27, 'both': 36},
    'i3d': {'audio': 5, 'vision': 9, 'both': 16},
    'videomae': {'audio': 3, 'vision': 4, 'both': 4},
}
CREMA_D_VARIANTS = ('smoke', 'audio', 'vision', 'as_published', 'audio_as_published', 'vision_as_published')


CREMA_D_NUMBERS = ('train/loss', 'train/accuracy', 'loss', 'accuracy')  # of the report's Tables 1 to 3, in order


def crema_d(config: ConfigDict, layout: str, published: Mapping[str, tuple[float, ...]] | None) -> None:
    """CREMA-D as pictures, written by data_prep.crema_d; `layout` is the end of its directory's name.

    Variants: both modalities, `audio` or `vision` alone, and each of them `as_published`. By default speakers are not
    shared, five folds, nine of the other actors validate. As published: clips are divided at random (70/30 for
    pictures, 80/20 for clips), so that the same actors train and test, and the epoch is chosen on the test clips; the
    order of those files, which decides the published division, is not known. `published` are its numbers
    (`CREMA_D_NUMBERS`) on 'audio', 'vision' and 'both'; None where nobody published any.

    What the report does otherwise, and a config cannot: it drops three clips (and ten without a face of the 2-D
    pictures), data_prep.crema_d --drop published, where ours drops the four that are known to be bad.
    """
    one = [m for m in ('audio', 'vision') if config.variant.startswith(m)]
    config.modalities = tuple(one) or ('audio', 'vision')
    config.data.directory = f'data/crema_d_{layout}'
    config.data.max_shapes = 1
    config.data.threads = 2
    config.losses = ConfigDict({'cross_entropy': 1.0})
    config.selection.metric = 'accuracy'
    config.headline = ('accuracy', 'uar', 'macro_f1', 'loss')
    config.evaluate_train = True  # the report's tables have both splits
    if published:
        numbers = dict(zip(CREMA_D_NUMBERS, published[one[0] if one else 'both'], strict=True))
        source = 'shared-encoder report, chosen on test clips'
        config.published = ConfigDict({**numbers, 'dataset': 'crema_d', 'source': source})
    if config.variant.endswith('as_published'):
        config.protocol.name = 'random_clips_shared_speakers'
        test = 0.3 if layout.startswith('2d') else 0.2
        config.protocol.options = ConfigDict({'test_fraction': test, 'selection': 'test'})
    else:
        config.protocol.name = 'leave_speakers_out'
        config.protocol.options = ConfigDict({'folds': 5, 'validation_speakers': 9})


def crema_d_epochs(config: ConfigDict, network: str, longest: int) -> int:
    """`longest`, of which validation chooses one, or in variants `as_published` the report's own number."""
    if not config.variant.endswith('as_published'):
        return longest
    return CREMA_D_EPOCHS[network]['both' if len(config.modalities) == 2 else config.modalities[0]]


def published_sentiment(
    table: int, acc7: float, acc2: float, f1: float, mae: float | None = None, corr: float | None = None
) -> ConfigDict:
    """A row of the paper's Table 1, 2 or 4, percent as printed."""
    values = dict(zip(SENTIMENT, (acc7 / 100, acc2 / 100, f1 / 100, mae, corr), strict=True))
    known = {name: value for name, value in values.items() if value is not None}
    dataset = 'mosei' if table == 2 else 'mosi'
    return ConfigDict({**known, 'dataset': dataset, 'source': SOURCE.format(f'Table {table}')})


def published_emotions(*percent: float) -> ConfigDict:
    """A row of the paper's Table 3: accuracy and F1 of happy, sad, angry, neutral, percent as printed."""
    values = {name: value / 100 for name, value in zip(IEMOCAP, percent, strict=True)}
    return ConfigDict({**values, 'dataset': 'iemocap', 'source': SOURCE.format('Table 3')})


def smoke(config: ConfigDict, **tiny: Any) -> ConfigDict:
    """Of the variant smoke: one epoch of a tiny model (fields `tiny`) on random records of the same schema."""
    if config.variant == 'smoke':
        config.seeds = 1
        config.data.directory = config.data.directory.replace('data/', 'data/smoke/')
        config.data.batch_size = 16
        config.data.max_shapes = 1
        config.epochs = 1
        config.accumulate = 1
        config.pretrained = ConfigDict()
        config.model.update(ConfigDict(tiny))
    return config
