"""The benchmark of the CNN encoders: a tiny run of both sides, what a fault does, wrong flags."""

import re

import numpy as np
import pytest

pytest.importorskip('torch', reason='the other side of the comparison')

import torch

from benchmarks import encoders_2d_3d as benchmark


@pytest.fixture(autouse=True)
def one_thread():
    """PyTorch's threads wait for each other where other tests run beside."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def rows_of(printed):
    """{network: its cells} of the table."""
    lines = printed.split('PyTorch\n')[-1].splitlines()
    return {line.split()[0]: re.split(r'\s{2,}', line)[1:] for line in lines}


@pytest.mark.slow
def test_both_sides_agree_and_are_measured(capsys):
    kinds = ['resnet18', 'vgg16', 'simple3d']
    assert benchmark.main(['--quick', '--steps=1', '--encoders', *kinds]) == 0
    printed = capsys.readouterr()
    assert printed.err == ''
    number = r'(\d+\.\d+)'
    losses = re.findall(rf'(\w+): .*: jax {number} PyTorch {number}; jax {number} PyTorch {number}$', printed.out, re.M)
    assert [row[0] for row in losses] == kinds
    for _, *row in losses:
        first, theirs, second, their_second = map(float, row)
        np.testing.assert_allclose((first, second), (theirs, their_second), rtol=1e-4)
        assert second < first, 'a step on the same batch lowers its loss'
    rows = rows_of(printed.out)
    assert list(rows) == kinds
    for kind, (shape, batch, ours, theirs, ratio, count, their_count) in rows.items():
        frames, side = benchmark.KINDS[kind][4:]
        assert shape == ' x '.join(map(str, (*[frames] * (frames > 0), side, side, 3)))
        assert batch == '2'
        np.testing.assert_allclose(float(ratio), float(theirs) / float(ours), atol=0.02, rtol=0.02)
        assert count == their_count
    assert rows['simple3d'][5] == '1,500'  # 246 and five times 246 of narrow convolutions, 24 of the head


@pytest.mark.parametrize('kind', ['googlenet', 'i3d'])
def test_the_weights_of_both_sides_are_one(kind):
    arguments = benchmark.parse_arguments(['--quick'])
    pair = benchmark.build(kind, benchmark.input_shape(kind, arguments), quick=True)
    ours = benchmark.jax.tree.leaves(pair.variables['params'])
    theirs = [p.detach().numpy() for p in pair.network.parameters()]
    assert sorted(a.size for a in ours) == sorted(a.size for a in theirs)
    np.testing.assert_allclose(
        sorted(np.abs(a).sum() for a in ours), sorted(np.abs(a).sum() for a in theirs), rtol=1e-5
    )
    assert getattr(pair.encoder, 'auxiliary', benchmark.CLASSES) == benchmark.CLASSES
    head = pair.variables['params']['head']['kernel']
    np.testing.assert_array_equal(head.T, pair.network.get_submodule(pair.head).weight.detach())


@pytest.mark.parametrize(
    ('losses', 'faults'),
    [
        (((1.0, 1.0), (0.9, 0.9005)), []),
        (((1.0, 1.0), (0.9, 0.95)), ['vgg16: the losses of step 2 differ, jax 0.90000 and PyTorch 0.95000']),
        (((float('nan'), 1.0), (9.0, 9.0)), ['vgg16: the losses of step 1 differ, jax nan and PyTorch 1.00000']),
    ],
)
def test_losses_that_differ_are_a_fault(losses, faults):
    assert benchmark.faults_of('vgg16', losses, (7020, 7020)) == faults
    counts = benchmark.faults_of('vgg16', losses, (7020, 8000))
    assert counts == [*faults, 'vgg16: jax has 7,020 parameters, PyTorch 8,000']


def test_a_fault_is_the_exit_status(monkeypatch, capsys):
    monkeypatch.setattr(benchmark, 'compare', lambda kind, arguments: (f'{kind}  its row', [f'{kind}: they differ']))
    assert benchmark.main(['--encoders', 'resnet18']) == 1
    printed = capsys.readouterr()
    assert printed.out.endswith('resnet18  its row\n')
    assert printed.err == 'error: resnet18: they differ\n'


@pytest.mark.parametrize(
    ('flags', 'message'),
    [
        (['--encoders', 'resnet50'], 'invalid choice'),
        (['--steps=0'], 'argument --steps: found 0, expected a whole number of at least 1'),
        (['--frames=32'], '--frames must be 64 or more for simple3d, found 32'),
        (['--size=32', '--encoders', 'vgg16', 'i3d'], '--size must be 64 or more for vgg16, found 32'),
    ],
)
def test_a_wrong_flag_is_refused(flags, message, capsys):
    with pytest.raises(SystemExit, match='2'):
        benchmark.main(flags)
    assert message in capsys.readouterr().err
