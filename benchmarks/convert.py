"""Conversion of full-size Hugging Face folders of random weights: seconds and memory.

    python -m benchmarks.convert [--convert bert wav2vec2]

Needs torch and transformers, which write the folders; `python -m data_prep.convert_weights huggingface` converts each
in a fresh process. Its peak of resident memory is printed beside the size of the weights, and beside what the program
needs without any (its --help). benchmarks/encoders.py compares the same models with ours.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import transformers

from mmer_jax.settings import command

CLASSES = 4
ROBERTA = {'max_position_embeddings': 514, 'type_vocab_size': 1, 'layer_norm_eps': 1e-5}
WAVE = {'apply_spec_augment': False, 'mask_time_prob': 0.0}
# class of transformers, kind of input, name of its last layer, where the base model is not the default configuration
MODELS: dict[str, tuple[str, str, str, dict[str, Any]]] = {
    'bert': ('BertForSequenceClassification', 'tokens', 'classifier', {}),
    'roberta': ('RobertaForSequenceClassification', 'tokens', 'classifier.out_proj', ROBERTA),
    'distilbert': ('DistilBertForSequenceClassification', 'tokens', 'classifier', {}),
    'wav2vec2': ('Wav2Vec2ForSequenceClassification', 'samples', 'classifier', WAVE),
    'hubert': ('HubertForSequenceClassification', 'samples', 'classifier', WAVE),
    'ast': ('ASTForAudioClassification', 'frames', 'classifier.dense', {}),
    'videomae': ('VideoMAEForVideoClassification', 'clips', 'classifier', {}),
    'vit': ('ViTForImageClassification', 'pictures', 'classifier', {}),
}
TINY = {'hidden_size': 16, 'num_hidden_layers': 2, 'num_attention_heads': 2, 'intermediate_size': 32}
TINY_OF: dict[str, dict[str, Any]] = {
    'tokens': {'vocab_size': 40, 'max_position_embeddings': 20},
    'samples': {
        'conv_dim': (8, 8),
        'conv_stride': (5, 2),
        'conv_kernel': (10, 3),
        'num_feat_extract_layers': 2,
        'num_conv_pos_embeddings': 8,
        'num_conv_pos_embedding_groups': 2,
        'classifier_proj_size': 8,
    },
    'frames': {'max_length': 24, 'num_mel_bins': 16, 'patch_size': 8, 'time_stride': 8, 'frequency_stride': 8},
    'clips': {'image_size': 16, 'patch_size': 8, 'num_frames': 4},
    'pictures': {'image_size': 16, 'patch_size': 8},
}
TINY_DISTILBERT = {'dim': 16, 'n_layers': 2, 'n_heads': 2, 'hidden_dim': 32}
# Prints the peak of a command's resident memory. A small process of its own starts it, for a child counts what its
# parent held when it was started.
LAUNCHER = """
import resource, subprocess, sys
code = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL).returncode
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(code)
"""


def build(name: str, size: str) -> transformers.PreTrainedModel:
    """The randomly initialised classifier of transformers, without dropout, its logits some units apart."""
    class_name, kind, head, fields = MODELS[name]
    if size == 'tiny':
        fields = {**fields, **(TINY_DISTILBERT if name == 'distilbert' else TINY), **TINY_OF[kind]}
    model_class = getattr(transformers, class_name)
    config = model_class.config_class(**fields, num_labels=CLASSES)
    for key, value in config.to_dict().items():
        if 'drop' in key and isinstance(value, float):
            setattr(config, key, 0.0)
    torch.manual_seed(0)
    model = model_class(config)
    torch.nn.init.normal_(model.get_submodule(head).weight, std=0.1)
    return model


def run_measured(command: list[str]) -> tuple[float, float]:
    """Seconds and peak resident memory in MB of a process; SystemExit with its message where it fails."""
    started = time.perf_counter()
    done = subprocess.run([sys.executable, '-c', LAUNCHER, *command], capture_output=True, text=True)
    seconds = time.perf_counter() - started
    if done.returncode:
        raise SystemExit(f'{" ".join(command)} ended with status {done.returncode}: {done.stderr.strip()}')
    return seconds, int(done.stdout) / (2**20 if sys.platform == 'darwin' else 2**10)


def measure_conversion(name: str, size: str) -> None:
    """Prints seconds and memory of a conversion against the size of the weights."""
    program = [sys.executable, '-m', 'data_prep.convert_weights']
    with tempfile.TemporaryDirectory() as folder:
        source, output = Path(folder) / 'source', Path(folder) / 'converted'
        build(name, size).save_pretrained(source)
        megabytes = sum(path.stat().st_size for path in source.glob('*.safetensors')) / 2**20
        own_seconds, own = run_measured([*program, '--help'])
        seconds, peak = run_measured([*program, 'huggingface', '--source', str(source), '--output', str(output)])
    print(
        f'{name}: {megabytes:.0f} MB of weights converted in {seconds:.1f} s with {peak:.0f} MB of memory at most '
        f'({peak / megabytes:.2f} times the weights); without any weights {own_seconds:.1f} s and {own:.0f} MB, so '
        f'{(peak - own) / megabytes:.2f} times',
        flush=True,
    )


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    summary = (__doc__ or '').split('\n')[0]
    parser = argparse.ArgumentParser(prog='python -m benchmarks.convert', description=summary)
    parser.add_argument('--convert', nargs='+', choices=MODELS, default=['bert', 'wav2vec2'], metavar='NAME')
    parser.add_argument('--size', choices=('base', 'tiny'), default='base')
    return parser.parse_args(argv)


def work(arguments: argparse.Namespace) -> None:
    transformers.utils.logging.disable_progress_bar()
    for name in arguments.convert:
        measure_conversion(name, arguments.size)


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    return command.run(work, parse_arguments(argv))


if __name__ == '__main__':
    sys.exit(main())
