"""Writes self_mm.npz: outputs of the official Self-MM network and the labels that its trainer finds over three epochs.

    python tests/golden/make_self_mm.py CHECKOUT    (needs torch; tests/test_self_mm.py reads the file, needs neither)

CHECKOUT is a clone of github.com/thuiar/Self-MM at commit 1786283. Its code is run, not kept here, so this file is the
parity and there is no live comparison. BERT is left out: the network is given the text's vector. Labels: the trainer's
own `init_labels`, `update_labels`, `update_features` and `update_centers` in the order of its `do_train`, on random
representations, with zero counted as positive (its default) and in neither mean.
"""

import sys
import types
from pathlib import Path

import numpy as np

PATH = Path(__file__).with_name('self_mm.npz')
SIZES = {'text': 6, 'audio': 4, 'vision': 5}
LENGTHS = {'audio': (5, 2, 7), 'vision': (3, 6, 1)}
HEADS = {'text': 4, 'audio': 3, 'vision': 2, 'fusion': 5}
RECORDS, EPOCHS, BATCH = 11, 3, 4
LABELS = np.float32([-2.4, 1.2, 0, 3, -0.6, 0.2, 0, -3, 2, 1.8, -1])


def options(exclude_zero=False):
    """What the official code reads of its arguments."""
    sizes = {
        f'post_{short}_dim': HEADS[m] for short, m in zip(('text', 'audio', 'video', 'fusion'), HEADS, strict=True)
    }
    dropouts = {f'post_{short}_dropout': 0.0 for short in ('text', 'audio', 'video', 'fusion')}
    parts = {'text_out': SIZES['text'], 'audio_out': 3, 'video_out': 2}
    for short, hidden in (('a', 4), ('v', 3)):
        parts |= {f'{short}_lstm_hidden_size': hidden, f'{short}_lstm_layers': 1, f'{short}_lstm_dropout': 0.0}
    given = {'need_data_aligned': False, 'language': 'en', 'use_finetune': True, 'feature_dims': tuple(SIZES.values())}
    kept = {'train_mode': 'regression', 'datasetName': 'mosi', 'train_samples': RECORDS, 'device': 'cpu', 'H': 3.0}
    return types.SimpleNamespace(**sizes, **dropouts, **parts, **given, **kept, excludeZero=exclude_zero)


def network(torch, self_mm, generator):
    """Weights, inputs and outputs of the official network."""

    class Vector(torch.nn.Module):
        """Instead of BERT: the text's vector as the first token."""

        def __init__(self, **_):
            super().__init__()

        def forward(self, text):
            return text

    self_mm.BertTextEncoder = Vector
    model = self_mm.SELF_MM(options())
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.tensor(generator.uniform(-0.7, 0.7, tuple(parameter.shape)), dtype=torch.float32))
    given = {'text': generator.standard_normal((3, 2, SIZES['text'])).astype(np.float32)}
    for m, lengths in LENGTHS.items():
        given[m] = generator.standard_normal((3, max(lengths), SIZES[m])).astype(np.float32)
    pairs = [(torch.tensor(given[m]), torch.tensor(LENGTHS[m])) for m in LENGTHS]
    with torch.no_grad():
        found = model(torch.tensor(given['text']), *pairs)
    arrays = {f'weight/{name}': value.numpy() for name, value in model.state_dict().items()}
    arrays |= {f'given/{m}': array for m, array in given.items()}
    return arrays | {f'output/{name}': value.numpy() for name, value in found.items()}


def labels(torch, trainer, generator, *, exclude_zero):
    """The batches shown and the labels behind each."""
    train = trainer.SELF_MM(options(exclude_zero))
    train.init_labels(torch.arange(RECORDS), torch.tensor(LABELS))
    numbers, shown, behind = [], [], []
    for epoch in range(1, EPOCHS + 1):
        order = generator.permutation(RECORDS)
        for start in range(0, RECORDS, BATCH):
            indexes = np.resize(order[start : start + BATCH], BATCH)  # the last batch: full by repetition, cut below
            count = len(order[start : start + BATCH])
            found = [np.float32(generator.standard_normal((BATCH, HEADS[m])) + 1) for m in ('fusion', *SIZES)]
            part, tensors = torch.tensor(indexes[:count]), [torch.tensor(x[:count]) for x in found]
            if epoch > 1:
                train.update_labels(*tensors, epoch, part, {})
            train.update_features(*tensors, part)
            train.update_centers()
            numbers.append(np.where(np.arange(BATCH) < count, indexes, RECORDS))
            shown.append(np.concatenate(found, -1))
            behind.append(np.stack([train.label_map[m].numpy().copy() for m in ('fusion', *SIZES)], -1))
    name = 'excluded' if exclude_zero else 'positive'
    arrays = {'numbers': np.stack(numbers), 'shown': np.stack(shown), 'behind': np.stack(behind)}
    return {f'{name}/{key}': array for key, array in arrays.items()}


def main():
    import torch

    for name in ('tqdm', 'models.subNets.BertTextEncoder', 'utils.functions', 'utils.metricsTop'):
        sys.modules[name] = types.ModuleType(name)
    sys.modules['tqdm'].tqdm = sys.modules['models.subNets.BertTextEncoder'].BertTextEncoder = None
    sys.modules['utils.functions'].dict_to_str = None
    sys.modules['utils.metricsTop'].MetricsTop = lambda mode: types.SimpleNamespace(getMetics=lambda name: None)
    checkout = Path(sys.argv[1])
    loaded = {}
    for name, file in (('network', 'models/multiTask/SELF_MM.py'), ('trainer', 'trains/multiTask/SELF_MM.py')):
        loaded[name] = types.ModuleType(name)
        exec(compile((checkout / file).read_text(), file, 'exec'), loaded[name].__dict__)  # its packages need more
    generator = np.random.default_rng(0)
    arrays = {'label': LABELS, **network(torch, loaded['network'], generator)}
    for exclude_zero in (False, True):
        arrays |= labels(torch, loaded['trainer'], generator, exclude_zero=exclude_zero)
    np.savez_compressed(PATH, **arrays)
    print(f'{PATH.name}: {len(arrays)} arrays, {PATH.stat().st_size} bytes')


if __name__ == '__main__':
    main()
