"""Writes lstm.npz: inputs, weights, outputs and gradients of torch.nn.LSTM on packed sequences of unequal lengths.

    python tests/golden/make_lstm.py        (needs torch; tests/test_layers.py reads the file and needs none)

tests/test_layers.py calls `reference` as well, to compare with torch live where it is installed.
"""

from pathlib import Path

import numpy as np

PATH = Path(__file__).with_name('lstm.npz')
# Case: (layers, bidirectional).
CASES = {'uni1': (1, False), 'bi1': (1, True), 'uni2': (2, False), 'bi2': (2, True)}
LENGTHS = np.array([7, 3, 5, 1])
INPUT_SIZE, HIDDEN_SIZE = 3, 4


def reference(case, x, lengths, cotangent, weights=None, seed=0):
    """Arrays by name: the weights, `output` (B, T, H or 2 H), and gradients `grad_*` of sum(output x cotangent)."""
    import torch

    torch.manual_seed(seed)
    layers, bidirectional = CASES[case]
    lstm = torch.nn.LSTM(INPUT_SIZE, HIDDEN_SIZE, layers, batch_first=True, bidirectional=bidirectional)
    with torch.no_grad():
        for name, parameter in lstm.named_parameters():
            if weights is not None:
                parameter.copy_(torch.from_numpy(weights[name]))
            else:
                parameter.uniform_(-0.8, 0.8)
    inputs = torch.from_numpy(x).requires_grad_()
    packed = torch.nn.utils.rnn.pack_padded_sequence(
        inputs, torch.from_numpy(lengths), batch_first=True, enforce_sorted=False
    )
    output, _ = torch.nn.utils.rnn.pad_packed_sequence(lstm(packed)[0], batch_first=True)
    (output * torch.from_numpy(cotangent[..., : output.shape[-1]])).sum().backward()
    arrays = {'output': output.detach().numpy(), 'grad_x': inputs.grad.numpy()}
    for name, parameter in lstm.named_parameters():
        arrays[name] = parameter.detach().numpy()
        arrays[f'grad_{name}'] = parameter.grad.numpy()
    return arrays


def main():
    import torch

    generator = np.random.default_rng(0)
    shape = (len(LENGTHS), LENGTHS.max())
    x = generator.standard_normal((*shape, INPUT_SIZE)).astype(np.float32)
    cotangent = generator.standard_normal((*shape, 2 * HIDDEN_SIZE)).astype(np.float32)
    note = f'torch.nn.LSTM of torch {torch.__version__} on random weights, written by tests/golden/make_lstm.py'
    arrays = {'note': np.array(note), 'x': x, 'lengths': LENGTHS, 'cotangent': cotangent}
    for case in CASES:
        arrays.update({f'{case}/{name}': value for name, value in reference(case, x, LENGTHS, cotangent).items()})
    np.savez_compressed(PATH, **arrays)


if __name__ == '__main__':
    main()
