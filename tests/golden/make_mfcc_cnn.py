"""Writes mfcc_cnn.npz: the published audio network of CFN-SR in torch, its outputs, gradients and statistics.

    python tests/golden/make_mfcc_cnn.py        (needs torch; tests/test_encoders.py reads the file and needs none)

Inputs and weights are values that float16 holds exactly, and are stored so, to keep the file small; everything is
computed in float32. tests/test_encoders.py calls `reference` as well, to compare with torch live.
"""

from pathlib import Path

import numpy as np

PATH = Path(__file__).with_name('mfcc_cnn.npz')
ROWS, FRAMES, COEFFICIENTS, CLASSES = 3, 212, 13, 8


def network(dropout=0.2, head_dropout=0.4):
    """Fu et al. 2021, equations 1 to 3, with the layers in the published order; input (B, 13, 212)."""
    from torch import nn

    return nn.Sequential(
        nn.Conv1d(13, 32, 7, padding=2),
        nn.ReLU(),
        nn.BatchNorm1d(32),
        nn.Conv1d(32, 32, 7, padding=2),
        nn.ReLU(),
        nn.MaxPool1d(8),
        nn.BatchNorm1d(32),
        nn.Dropout(dropout),
        nn.Conv1d(32, 64, 5, padding=2),
        nn.ReLU(),
        nn.BatchNorm1d(64),
        nn.Flatten(),
        nn.Dropout(head_dropout),
        nn.Linear(1664, CLASSES),
    )


def random_weights(seed=0):
    """state_dict name -> array, with running statistics that are neither 0 nor 1."""
    generator = np.random.default_rng(seed)
    arrays = {}
    for name, tensor in network().state_dict().items():
        shape = tuple(tensor.shape)
        if name.endswith('num_batches_tracked'):
            continue
        if name.endswith('running_var') or (len(shape) == 1 and name.endswith('weight')):
            value = generator.uniform(0.5, 1.5, shape)
        elif len(shape) == 1:
            value = 0.3 * generator.standard_normal(shape)
        else:
            value = generator.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))
        arrays[name] = value.astype(np.float16)
    return arrays


def reference(x, weights, cotangent):
    """`eval_output` (B, 8) with the running statistics; with batch statistics and no dropout `train_output`, the
    gradients `grad_*` of sum(output x cotangent), and `new_*`, the running statistics after the step."""
    import torch

    def build(**dropout):
        model = network(**dropout)
        state = {name: torch.from_numpy(value.astype(np.float32)) for name, value in weights.items()}
        missing = model.load_state_dict(state, strict=False).missing_keys
        assert all(name.endswith('num_batches_tracked') for name in missing), missing
        return model

    inputs = torch.from_numpy(x.astype(np.float32)).transpose(1, 2)
    with torch.no_grad():
        arrays = {'eval_output': build().eval()(inputs).numpy()}
    model = build(dropout=0.0, head_dropout=0.0).train()
    output = model(inputs)
    (output * torch.from_numpy(cotangent)).sum().backward()
    arrays['train_output'] = output.detach().numpy()
    arrays.update({f'grad_{name}': parameter.grad.numpy() for name, parameter in model.named_parameters()})
    arrays.update({f'new_{name}': value.numpy() for name, value in model.named_buffers() if 'running' in name})
    return arrays


def main():
    import torch

    torch.manual_seed(0)
    generator = np.random.default_rng(1)
    x = generator.standard_normal((ROWS, FRAMES, COEFFICIENTS)).astype(np.float16)
    cotangent = generator.standard_normal((ROWS, CLASSES)).astype(np.float32)
    weights = random_weights()
    note = f'torch {torch.__version__} on random weights, written by tests/golden/make_mfcc_cnn.py'
    arrays = {'note': np.array(note), 'x': x, 'cotangent': cotangent}
    arrays.update({f'weights/{name}': value for name, value in weights.items()})
    arrays.update({f'reference/{name}': value for name, value in reference(x, weights, cotangent).items()})
    np.savez_compressed(PATH, **arrays)


if __name__ == '__main__':
    main()
