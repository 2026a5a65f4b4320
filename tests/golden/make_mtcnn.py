"""Writes mtcnn.npz: what facenet-pytorch's three networks answer, with weights by formula, and PyTorch's area resize.

python tests/golden/make_mtcnn.py        (needs torch, torchvision and facenet-pytorch 2.6.0; tests/test_mtcnn.py
                                          reads the file and needs none)
"""

from pathlib import Path

import numpy as np

PATH = Path(__file__).with_name('mtcnn.npz')
SIZES = {'pnet': (31, 37), 'rnet': (24, 24), 'onet': (48, 48)}


def weights(name, shape):
    """A weight of a state dict by its name: sines, so that no generator has to stay the same for ever."""
    number = sum(map(ord, name))
    values = np.sin(np.arange(np.prod(shape)) * (0.731 + 0.00137 * number) + number)
    return (values * np.sqrt(2 / np.prod(shape[1:]))).reshape(shape).astype(np.float32)


def pictures(network):
    """Two pictures of whole values in 0..255, float32 (2, H, W, 3)."""
    y, x = np.mgrid[: SIZES[network][0], : SIZES[network][1]]
    waves = [[127 + 120 * np.sin(0.3 * x + 0.1 * channel * y + n) for channel in range(3)] for n in range(2)]
    return np.stack([np.stack(wave, -1) for wave in waves]).round().astype(np.float32)


def areas():
    """Two frames, uint8 (2, 13, 17, 3), of which rows 2..11 and columns 3..15 are resized to 7 x 24."""
    return (np.arange(2 * 13 * 17 * 3) * 37 % 251).reshape(2, 13, 17, 3).astype(np.uint8)


def main():
    import torch
    from facenet_pytorch.models.mtcnn import ONet, PNet, RNet

    arrays = {}
    for name, network in {'pnet': PNet, 'rnet': RNet, 'onet': ONet}.items():
        network = network(pretrained=False).eval()
        network.load_state_dict({k: torch.from_numpy(weights(k, v.shape)) for k, v in network.state_dict().items()})
        with torch.no_grad():
            scaled = torch.from_numpy((pictures(name) - 127.5) / 128).permute(0, 3, 1, 2)
            box, *points, face = (output.numpy() for output in network(scaled))
        arrays[f'{name}_box'] = np.moveaxis(box, 1, -1)
        arrays[f'{name}_face'] = face[:, 1]
        if points:
            arrays[f'{name}_points'] = points[0]
    part = torch.from_numpy(areas()[:, 2:12, 3:16].astype(np.float32)).permute(0, 3, 1, 2)
    arrays['area'] = torch.nn.functional.interpolate(part, size=(7, 24), mode='area').permute(0, 2, 3, 1).numpy()
    np.savez_compressed(PATH, **arrays)


if __name__ == '__main__':
    main()
