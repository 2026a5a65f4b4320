"""Writes audio_visual.npz: outputs and gradients of the official CFN-SR block, MSAF and MMTM on tiny random inputs.

    python tests/golden/make_audio_visual.py CFN_SR MSAF MMTM     (needs torch; the test that reads the file does not)

The arguments are clones of github.com/skeletonNN/CFN-SR at commit 2443494, github.com/anita-hu/MSAF at 125e0f1 and
github.com/haamoon/mmtm at 1c81cfe. Their code is run, not kept here. CFN-SR's main file has the constructor of its
self-attention commented out; it is built from the ablation's file, and the forward function of the main one is run.
Weights are values that float16 holds exactly, and are stored so; everything is computed in float32.
"""

import importlib.util
import sys
import types
from pathlib import Path

import numpy as np

PATH = Path(__file__).with_name('audio_visual.npz')
WIDTH, CHANNELS, STEPS, ROWS = 16, 12, 5, 3  # of CFN-SR's block; its code fixes 5 layers and 8 heads
VIDEO = (2, 3, 2)
COUPLED = {'vision': (8, 2, 3, 2), 'audio': (4, 5)}  # channels and positions of what MSAF and MMTM couple
BLOCK_CHANNEL, REDUCTION = 4, 2


def load(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def randomise(model, seed):
    """Initial weights, with biases and norms that are neither 0 nor 1, rounded to float16."""
    import torch

    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.2 * torch.randn_like(parameter))
            parameter.copy_(parameter.half().float())
        for name, buffer in model.named_buffers():
            if 'running' in name:
                buffer.copy_((buffer + 0.3 * torch.rand_like(buffer)).half().float())
    return model.eval()


def state(model):
    """Parameters and running statistics by name."""
    arrays = {name: parameter.detach().numpy() for name, parameter in model.named_parameters()}
    return arrays | {name: buffer.numpy() for name, buffer in model.named_buffers() if 'running' in name}


def gradient(model, outputs):
    """Of the sum of the outputs' squares, by parameter."""
    model.zero_grad()
    sum(output.square().sum() for output in outputs).backward()
    return {name: parameter.grad.numpy() for name, parameter in model.named_parameters() if parameter.grad is not None}


def cfn_sr(checkout, msaf, arrays):
    import torch

    sys.path[:0] = [checkout, msaf]
    folder = Path(checkout, 'networks')
    main, ablation = load(folder / 'msaf_ravdess.py'), load(folder / 'msaf_ravdess_ab_2.py')
    torch.Tensor.cuda = lambda self, *args, **options: self  # the code moves its sum to the device by itself
    block = randomise(ablation.CrossModalAttentionLayer(k=WIDTH, x_channels=CHANNELS, y_size=WIDTH, spatial=True), 0)
    generator = np.random.default_rng(0)
    video = generator.standard_normal((ROWS, CHANNELS, *VIDEO)).astype(np.float32)
    audio = generator.standard_normal((ROWS, WIDTH, STEPS)).astype(np.float32)
    for name, forward in (('residual', main), ('no_residual', ablation)):
        for case, parts in (('batch', [slice(None)]), ('alone', [slice(row, row + 1) for row in range(ROWS)])):
            if (name, case) == ('no_residual', 'batch'):
                continue
            outputs = [
                forward.CrossModalAttentionLayer.forward(block, torch.tensor(video[p]), torch.tensor(audio[p]))[0]
                for p in parts
            ]
            key = f'cfn_sr/{name}_{case}'
            arrays[f'{key}/output'] = torch.cat(outputs).detach().numpy()
            if key != 'cfn_sr/residual_alone':  # to keep the file small
                save(arrays, f'{key}/gradient', gradient(block, outputs), np.float32)
    arrays['cfn_sr/video'], arrays['cfn_sr/audio'] = video, audio
    save(arrays, 'cfn_sr/weights', state(block), np.float16)


def coupled_inputs(seed):
    generator = np.random.default_rng(seed)
    return {m: generator.standard_normal((ROWS, *shape)).astype(np.float32) for m, shape in COUPLED.items()}


def run_coupled(arrays, name, model, call, inputs):
    for m, x in inputs.items():
        arrays[f'{name}/{m}'] = x
    save(arrays, f'{name}/weights', state(model), np.float16)
    for mode in ('eval', 'train'):
        getattr(model, mode)()
        outputs = call(model)
        for m, output in zip(inputs, outputs, strict=True):
            arrays[f'{name}/{mode}/{m}'] = output.detach().numpy()
        save(arrays, f'{name}/{mode}/gradient', gradient(model, outputs), np.float32)
    model.eval()


def save(arrays, key, values, dtype):
    for name, value in values.items():
        arrays[f'{key}/{name}'] = value.astype(dtype)


def main(cfn_sr_checkout, msaf_checkout, mmtm_checkout):
    import torch

    arrays = {}
    cfn_sr(cfn_sr_checkout, msaf_checkout, arrays)
    channels = [shape[0] for shape in COUPLED.values()]
    msaf = load(Path(msaf_checkout, 'MSAF.py')).MSAF(channels, BLOCK_CHANNEL, 0.0, reduction_factor=REDUCTION)
    inputs = coupled_inputs(1)
    tensors = [torch.tensor(x) for x in inputs.values()]
    run_coupled(arrays, 'msaf', randomise(msaf, 1), lambda model: model(tensors), inputs)

    # The file of MMTM imports a function of a submodule that the module itself does not use.
    for name in ('models', 'models.auxiliary', 'models.auxiliary.resnet', 'models.auxiliary.resnet.resnet'):
        sys.modules[name] = types.ModuleType(name)
    sys.modules['models.auxiliary.resnet.resnet'].transform_input = None
    mmtm = load(Path(mmtm_checkout, 'mmtm.py')).MMTM(*channels, ratio=4)
    run_coupled(arrays, 'mmtm', randomise(mmtm, 2), lambda model: model(*tensors), inputs)
    arrays['note'] = np.array(
        f'official CFN-SR 2443494, MSAF 125e0f1 and mmtm 1c81cfe in torch {torch.__version__}, written by '
        'tests/golden/make_audio_visual.py'
    )
    np.savez_compressed(PATH, **arrays)


if __name__ == '__main__':
    main(*sys.argv[1:])
