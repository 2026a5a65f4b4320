"""config.json and the preprocessor's settings of a Hugging Face folder, value by value; errors name file and key.

Every key is read, or stands below as one that changes nothing here, or is named to the user (`Settings.not_read`).
"""

import dataclasses
import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmer_jax.media.download import check_download

# Where transformers writes the settings of the input, by version and kind: a file, and the key of the part in it.
PREPROCESSORS = (
    ('preprocessor_config.json', ''),
    ('video_preprocessor_config.json', ''),
    ('processor_config.json', 'feature_extractor'),
    ('processor_config.json', 'image_processor'),
    ('processor_config.json', 'video_processor'),
)
ACTIVATIONS = {
    'gelu': 'gelu',
    'gelu_fast': 'gelu_new',
    'gelu_new': 'gelu_new',
    'gelu_pytorch_tanh': 'gelu_new',
    'linear': 'linear',
    'relu': 'relu',
    'silu': 'silu',
    'swish': 'silu',
    'tanh': 'tanh',
}
# Keys of config.json without a part in the encoder or its pooling: names, bookkeeping, how it was initialised, heads,
# decoders, losses, the quantiser of wav2vec 2.0, the generation of text, and what no version of transformers reads.
WITHOUT_EFFECT = re.compile(
    r'_.*|architectures|auto_map|model_type|transformers_version|torch_dtype|dtype|torchscript|use_bfloat16|id2label|'
    r'label2id|num_labels|problem_type|finetuning_task|task_specific_params|return_dict|use_return_dict|output_.*|'
    r'initializer_(range|factor)|gradient_checkpointing|use_cache|vocab_size|tokenizer_class|language|keys_to_ignore_.*|'
    r'chunk_size_feed_forward|tie_.*|tf_legacy_loss|is_encoder_decoder|cross_attention_hidden_size|add_cross_attention|'
    r'(bos|eos|pad|sep|decoder_start|forced_bos|forced_eos)_token_id|prefix|(begin_)?suppress_tokens|'
    r'bad_words_ids|diversity_penalty|do_sample|early_stopping|(encoder_)?no_repeat_ngram_size|'
    r'exponential_decay_length_penalty|length_penalty|max_length|min_length|num_beam_groups|num_beams|'
    r'num_return_sequences|remove_invalid_values|repetition_penalty|temperature|top_k|top_p|typical_p|'
    r'classifier_dropout|directionality|pooler_(fc_size|num_attention_heads|num_fc_layers|size_per_head|type)|'
    r'qa_dropout|sinusoidal_pos_embds|classifier_proj_size|ctc_.*|final_dropout|feat_extract_dropout|'
    r'feat_quantizer_dropout|codevector_dim|proj_codevector_dim|num_codevectors?_.*|num_negatives|'
    r'contrastive_logits_temperature|diversity_loss_weight|tdnn_.*|xvector_output_dim|adapter_(act|kernel_size|stride)|'
    r'num_adapter_layers|mask_channel_.*|mask_feature_(length|min_masks)|mask_time_(other|selection)|mask_minimum_.*|'
    r'no_mask_.*|(hidden_dropout|attention_probs_dropout)_prob|feat_proj_layer_norm|encoder_stride|pooler_output_size|'
    r'pooler_act|decoder_.*|norm_pix_loss|num_ctc_classes|replace_prob|num_clusters'
)
# Of the preprocessor: how pictures are cut, which data_prep does in its own way, and what is the same for all.
INPUT_WITHOUT_EFFECT = re.compile(
    r'(image_processor|feature_extractor|video_processor)_type|processor_class|auto_map|do_resize|size|crop_size|'
    r'do_center_crop|resample|default_to_square|feature_size|padding_side|return_attention_mask|do_convert_rgb|'
    r'(input_)?data_format|device|disable_grouping|return_(tensors|metadata)|do_pad|pad_size|do_sample_frames|fps|'
    r'num_frames|video_metadata|max_length|rescale_factor|image_mean|image_std|mean|std|_.*'
)


def read_json(path: Path) -> dict[str, Any]:
    """The object that a JSON file holds. ValueError names the file: missing, a failed download, no JSON, no object."""
    check_download(path, 'a JSON file')
    try:
        values = json.loads(path.read_text(encoding='utf-8'))
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f'{path} cannot be read as JSON: {error}') from error
    if not isinstance(values, dict):
        raise ValueError(f'{path} holds a JSON {type(values).__name__}, expected an object of settings by name')
    return values


@dataclasses.dataclass(frozen=True)
class Settings:
    """The settings of one file; each reader gives the default where the key is absent, ValueError where it is wrong."""

    file: str
    values: Mapping[str, Any]
    read: set[str] = dataclasses.field(default_factory=set, compare=False)  # keys that were asked for

    def get(self, key: str, default: Any = None) -> Any:
        self.read.add(key)
        return self.values.get(key, default)

    def not_read(self, without_effect: re.Pattern[str]) -> list[str]:
        """'key = value' of what nobody asked for and may change what the network computes; null and false do not."""
        keys = (key for key in sorted(self.values) if key not in self.read and not without_effect.fullmatch(key))
        return [f'{key} = {self.values[key]!r}' for key in keys if self.values[key] not in (None, False)]

    def __contains__(self, key: str) -> bool:
        return key in self.values

    def wrong(self, key: str, expected: str) -> ValueError:
        return ValueError(f'{self.file} has {key} = {self.values.get(key)!r}, expected {expected}')

    def whole(self, key: str, default: int, least: int = 1) -> int:
        value = self.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise self.wrong(key, f'a whole number of {least} or more')
        return value

    def real(self, key: str, default: float, least: float = 0.0) -> float:
        value = self.get(key, default)
        if not _is_real(value) or value < least:
            raise self.wrong(key, 'a number' if least == -math.inf else f'a number of {least:g} or more')
        return value

    def flag(self, key: str, default: bool) -> bool:
        """null is no answer, as some preprocessors write it."""
        value = default if self.get(key) is None else self.get(key)
        if not isinstance(value, bool):
            raise self.wrong(key, 'true or false')
        return value

    def wholes(self, key: str, default: tuple[int, ...]) -> tuple[int, ...]:
        value = self.get(key, default)
        if not isinstance(value, (list, tuple)) or not all(type(item) is int and item > 0 for item in value):
            raise self.wrong(key, 'a list of whole numbers')
        return tuple(value)

    def channels(self, key: str, default: tuple[float, ...]) -> tuple[float, ...]:
        """One number for each of the three colours."""
        value = self.get(key, default)
        if not isinstance(value, (list, tuple)) or len(value) != 3 or not all(map(_is_real, value)):
            raise self.wrong(key, 'three numbers')
        return tuple(value)

    def square(self, key: str, default: int) -> int:
        """The side of a size that may be given as a number or as a pair."""
        value = self.get(key, default)
        if isinstance(value, (list, tuple)) and len(value) == 2:
            first, second = self.wholes(key, ())
            if first != second:
                raise self.wrong(key, 'a square: the encoders here take no other')
            return first
        return self.whole(key, default)

    def activation(self, key: str, default: str = 'gelu') -> str:
        """The encoders' name of an activation."""
        value = self.get(key, default)
        if not isinstance(value, str) or value not in ACTIVATIONS:
            raise self.wrong(key, f'one of the known activations {", ".join(ACTIVATIONS)}')
        return ACTIVATIONS[value]

    def demand(self, key: str, *allowed: Any) -> Any:
        """The value, the first of the allowed ones where the key is absent; they are what the encoders here know."""
        value = self.get(key, allowed[0])
        if not any(value == known and type(value) is type(known) for known in allowed):
            raise self.wrong(key, f'{" or ".join(map(repr, allowed))}, which the encoders here know')
        return value


def _is_real(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def read_settings(folder: Path) -> tuple[Settings, Settings]:
    """config.json, and what the folder says of the preprocessing; nothing where it does not say."""
    config = Settings(f'{folder / "config.json"}', read_json(folder / 'config.json'))
    for name, part in PREPROCESSORS:
        path = folder / name
        if not path.is_file():
            continue
        values = read_json(path)
        if not part:
            return config, Settings(f'{path}', values)
        if part in values:
            if not isinstance(values[part], dict):
                raise ValueError(f'{path} has {part} = {values[part]!r}, expected an object of settings by name')
            return config, Settings(f'{path} ({part})', values[part])
    return config, Settings(f'{folder / PREPROCESSORS[0][0]}', {})
