"""The encoder and conversion benchmarks: counted operations, a process's memory, and a tiny run of both sides."""

import re
import sys

import jax
import numpy as np
import pytest

pytest.importorskip('torch', reason='the other side of the comparison')
pytest.importorskip('transformers', reason='the other side of the comparison')

import torch

from benchmarks import convert, encoders
from mmer_jax.encoders import Bert, Wav2Vec2

SIZES = {'hidden_size': 8, 'num_layers': 3, 'num_heads': 2, 'intermediate_size': 20}


def operations(encoder, x):
    mask = np.ones(x.shape[:2], bool)
    params = jax.eval_shape(lambda: encoder.init(jax.random.key(0), x, mask, train=False))
    jaxpr = jax.make_jaxpr(lambda params: encoder.apply(params, x, mask, train=False)[0])(params)
    return encoders.product_operations(jaxpr.jaxpr)


@pytest.mark.parametrize('remat', [False, True])
def test_operations_of_a_transformer_are_those_counted_by_hand(remat):
    batch, steps, width, inner = 2, 6, 8, 20
    dense = 4 * steps * width * width + 2 * steps * width * inner
    attention = 2 * steps * steps * width
    x = np.ones((batch, steps), np.int32)
    assert operations(Bert(**SIZES, vocab_size=9, remat=remat), x) == 2 * batch * 3 * (dense + attention)


def test_operations_of_convolutions_are_those_counted_by_hand():
    fields = {**SIZES, 'num_layers': 0, 'conv_sizes': (4, 6), 'conv_kernels': (5, 3), 'conv_strides': (3, 2)}
    encoder = Wav2Vec2(**fields, position_kernel=4, position_groups=2)
    first, second = (60 - 5) // 3 + 1, ((60 - 5) // 3 + 1 - 3) // 2 + 1
    convolutions = first * 5 * 1 * 4 + second * 3 * 4 * 6
    projection, positions = second * 6 * 8, second * 4 * 4 * 8
    assert operations(encoder, np.ones((2, 60), np.float32)) == 2 * 2 * (convolutions + projection + positions)


def test_share_and_ratio_are_medians_over_rounds(monkeypatch, capsys):
    rows = {
        'call': [2.0, 8.0, 4.0],
        'product': [1.0, 2.0, 1.0],
        'their call': [4.0, 4.0, 4.0],
        'theirs': [2.0, 1.0, 2.0],
    }
    monkeypatch.setattr(encoders, 'alternate', lambda functions, repeats: [rows[function] for function in functions])
    ours, theirs = encoders.Side('call', 'product'), encoders.Side('their call', 'theirs')
    encoders.measure('step', {'jax': ours, 'PyTorch': theirs}, 2 * 10**3, 10, 3)  # as many operations as the product
    assert capsys.readouterr().out == (
        '  step: jax 4.0 ms, share 0.250; PyTorch 4.0 ms, share 0.250; ratio to PyTorch 1.00 (median of 3); '
        'matrix products: jax 0.002, PyTorch 0.001 GFLOP/s\n'
    )
    encoders.measure('step', {'jax': ours}, 2 * 10**3, 10, 3)
    assert capsys.readouterr().out == ('  step: jax 4.0 ms, share 0.250; matrix products: jax 0.002 GFLOP/s\n')


def test_memory_is_that_of_the_process_and_not_of_the_one_that_starts_it():
    held = np.ones(2**27, np.uint8)  # 128 MB here
    _, idle = convert.run_measured([sys.executable, '-c', 'pass'])
    _, busy = convert.run_measured([sys.executable, '-c', 'b"x" * (100 << 20)'])
    assert 1 < idle < held.nbytes / 2**20
    assert 95 < busy - idle < 125


def test_a_process_that_fails_ends_the_benchmark_with_its_message():
    with pytest.raises(SystemExit, match='ended with status 3: no such folder'):
        convert.run_measured(
            [sys.executable, '-c', 'import sys; print("no such folder", file=sys.stderr); sys.exit(3)']
        )


@pytest.mark.parametrize('flags', [['--encoders=mica'], ['--steps=0'], ['--dtype=bfloat16']])
def test_a_wrong_flag_is_refused(flags, capsys):
    try:
        status = encoders.main(flags)
    except SystemExit as error:  # as argparse ends
        status = error.code
    assert status == 2
    assert re.search('invalid choice|at least 1|on an accelerator', capsys.readouterr().err)


@pytest.fixture
def one_thread():
    """PyTorch's threads wait for each other where other tests run beside."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.slow
@pytest.mark.usefixtures('one_thread')
def test_both_sides_agree_and_are_measured(capsys):
    assert encoders.main(['--size=tiny', '--encoders', 'distilbert', 'vit', '--batch=2', '--steps=1']) == 0
    printed = capsys.readouterr().out
    assert re.findall(r'^(\w+): \(2, ', printed, re.M) == ['distilbert', 'vit']
    logits = re.findall(r'logits of PyTorch to ([\d.]+), largest difference ([\d.e-]+)', printed)
    assert len(logits) == 2
    assert all(float(apart) < 1e-3 * float(size) for size, apart in logits)
    losses = re.findall(r'steps: jax ([\d.]+) ([\d.]+), PyTorch ([\d.]+) ([\d.]+)$', printed, re.M)
    assert len(losses) == 2
    for row in np.array(losses, np.float64):
        np.testing.assert_allclose(row[:2], row[2:], atol=1e-4)
        assert row[1] < row[0], 'a step on the same batch lowers its loss'
    calls = re.findall(
        r'(inference|step): jax ([\d.]+) ms, .* PyTorch ([\d.]+) ms, .* ratio to PyTorch ([\d.]+) ', printed
    )
    assert [row[0] for row in calls] == ['inference', 'step'] * 2
    for _, *numbers in calls:
        ours, theirs, ratio = map(float, numbers)  # milliseconds to 0.1, the ratio to 0.01
        assert (ours - 0.06) / (theirs + 0.06) - 0.01 < ratio < (ours + 0.06) / max(theirs - 0.06, 1e-9) + 0.01
