"""The fine-tuning benchmark on a tiny BERT: both sides begin equal, see the same batches, and are put in relation."""

import re

import pytest

pytest.importorskip('torch', reason='the other side of the comparison')
pytest.importorskip('transformers', reason='the other side of the comparison')

import torch
import transformers

from benchmarks import fine_tuning
from data_prep import synthetic
from data_prep.convert_weights.__main__ import main as convert


def test_both_sides_begin_equal_and_learn_on_the_same_batches(tmp_path, monkeypatch, capsys):
    torch.manual_seed(0)
    sizes = {'hidden_size': 16, 'num_hidden_layers': 1, 'num_attention_heads': 2, 'intermediate_size': 16}
    config = transformers.BertConfig(**sizes, vocab_size=1000, max_position_embeddings=128)
    source, weights, data = tmp_path / 'bert', tmp_path / 'weights', tmp_path / 'data'
    transformers.BertModel(config).save_pretrained(source)
    monkeypatch.setenv('MMER_PRETRAINED', str(weights))
    arguments = ['huggingface', '--source', str(source), '--output', 'all-minilm-l6-v2']
    assert convert(arguments) == 0
    synthetic.write_like('mosi_tokens', data, records=100)
    capsys.readouterr()
    assert fine_tuning.main(['--data', str(data), '--source', str(source)]) == 0
    output = capsys.readouterr().out
    assert float(re.search(r'largest difference ([\d.e+-]+)', output).group(1)) < 1e-4
    losses = [float(value) for value in re.findall(r'mean loss ([\d.]+)', output)]
    assert len(losses) == 2
    assert losses[0] == pytest.approx(losses[1], rel=0.3)
    seconds = [float(value) for value in re.findall(r'(?:jax|PyTorch): ([\d.]+) s', output)]
    ratio = float(re.search(r'jax / PyTorch: ([\d.]+) over all', output).group(1))
    assert ratio > 0
    assert len(seconds) == 2
