"""Writes ast_fbank.npz: three sounds, and their log-mel frames by the ASTFeatureExtractor of Hugging Face transformers.

    python -m tests.golden.make_ast_fbank     (needs torch; tests/test_filterbank.py reads the file without)

Without torchaudio the extractor computes in float64. `input` is what it hands to the model, cut to the frames of each
sound: (log energy - mean) / (2 std) with AudioSet's mean and deviation, the lengths one after the other.
"""

from pathlib import Path

import numpy as np

PATH = Path(__file__).with_name('ast_fbank.npz')
LENGTHS = (4800, 2719, 400)  # samples; 28, 15 and 1 frames
NUM_FRAMES = (28, 15, 1)


def sounds() -> list[np.ndarray]:
    """Int16 samples: a rising tone in noise, loud noise off zero, one short frame of a low tone."""
    generator, time = np.random.default_rng(0), np.arange(max(LENGTHS)) / 16000
    tone = 0.3 * np.sin(2 * np.pi * (300 + 4000 * time) * time) + 0.02 * generator.standard_normal(len(time))
    noise = 0.1 + 0.2 * generator.standard_normal(len(time))
    low = 0.05 * np.sin(2 * np.pi * 120 * time) + 0.003 * generator.standard_normal(len(time))
    values = [wave[:length] for wave, length in zip((tone, noise, low), LENGTHS, strict=True)]
    return [np.clip(np.round(wave * 32768), -32768, 32767).astype(np.int16) for wave in values]


def extract(waves: list[np.ndarray]) -> np.ndarray:
    """Float samples of several sounds -> what the extractor hands to the model, float32 (sounds, 1024, 128)."""
    from transformers import ASTFeatureExtractor

    return np.stack(ASTFeatureExtractor()(waves, sampling_rate=16000)['input_values'])


def main() -> None:
    import transformers

    waves = sounds()
    inputs = extract([wave.astype(np.float32) / 32768 for wave in waves])
    frames = np.concatenate([array[:steps] for array, steps in zip(inputs, NUM_FRAMES, strict=True)])
    origin = f'ASTFeatureExtractor of transformers {transformers.__version__}, without torchaudio'
    np.savez_compressed(PATH, waves=np.concatenate(waves), input=frames.astype(np.float32), origin=origin)


if __name__ == '__main__':
    main()
