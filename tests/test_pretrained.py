"""Converted weights: written whole or not at all, read back equal, put into a model strictly."""

import json

import numpy as np
import pytest

from mmer_jax import pretrained

WEIGHTS = {
    'params': {'conv': {'kernel': np.ones((3, 2), np.float32), 'bias': np.zeros(2, np.float32)}},
    'batch_stats': {'norm': {'mean': np.full(2, 5, np.float32)}},
}


def model(seeds=0):
    lead = (seeds,) if seeds else ()
    encoder = {'conv': {'kernel': np.zeros((*lead, 3, 2), np.float32), 'bias': np.ones((*lead, 2), np.float32)}}
    head = {'kernel': np.full((*lead, 2, 4), 7, np.float32)}
    return {
        'params': {'encoder': encoder, 'head': head},
        'batch_stats': {'encoder': {'norm': {'mean': np.zeros((*lead, 2), np.float32)}}},
    }


def test_what_is_saved_is_loaded_by_name_and_by_path(tmp_path, monkeypatch):
    monkeypatch.setenv('MMER_PRETRAINED', str(tmp_path))
    folder = pretrained.save_pretrained(tmp_path / 'tiny', WEIGHTS, {'family': 'test', 'sha256': 'ab'})
    for name in ('tiny', folder):
        loaded, source = pretrained.load_pretrained(name)
        np.testing.assert_array_equal(loaded['params']['conv']['kernel'], WEIGHTS['params']['conv']['kernel'])
        np.testing.assert_array_equal(loaded['batch_stats']['norm']['mean'], 5)
        assert source == {'family': 'test', 'sha256': 'ab'}
    assert [path.name for path in tmp_path.iterdir()] == ['tiny']
    with pytest.raises(FileExistsError, match='tiny exists'):
        pretrained.save_pretrained(folder, WEIGHTS, {})


def test_a_failed_write_leaves_nothing(tmp_path):
    with pytest.raises(TypeError):
        pretrained.save_pretrained(tmp_path / 'tiny', WEIGHTS, {'not': {json}})
    assert list(tmp_path.iterdir()) == []


def test_missing_and_damaged_weights_are_named(tmp_path, monkeypatch):
    monkeypatch.delenv('MMER_PRETRAINED', raising=False)
    with pytest.raises(FileNotFoundError, match=r'no params.safetensors in nothing; MMER_PRETRAINED is not set'):
        pretrained.load_pretrained('nothing')
    folder = pretrained.save_pretrained(tmp_path / 'tiny', WEIGHTS, {})
    (folder / 'sums.json').unlink()
    whole = (folder / 'params.safetensors').read_bytes()
    for damaged in (whole[:-3], whole[:20], b'', b'version https://git-lfs.github.com/spec/v1\n'):
        (folder / 'params.safetensors').write_bytes(damaged)
        with pytest.raises(ValueError, match='tiny/params.safetensors is damaged'):
            pretrained.load_pretrained(folder)


def test_what_was_changed_is_refused_and_weights_without_sums_say_so_once(tmp_path, capfd):
    head = pretrained.Head(np.ones((2, 2), np.float32), np.zeros(2, np.float32), 'regression', ('a', 'b'))
    vocabulary = tmp_path / 'vocab.txt'
    vocabulary.write_text('[UNK]\nso\ngood\n')
    folder = pretrained.save_pretrained(tmp_path / 'tiny', WEIGHTS, {}, head, [vocabulary])
    reads = {
        'params.safetensors': (pretrained.load_pretrained, pretrained.open_params),
        'head.safetensors': (pretrained.load_head,),
        'source.json': (pretrained.read_source, pretrained.load_pretrained),
        'vocab.txt': (pretrained.find_tokenizer,),
        'sums.json': (pretrained.load_pretrained, pretrained.read_source, pretrained.load_head),
    }
    assert {path.name for path in folder.iterdir()} == set(reads)
    for name, readers in reads.items():
        whole = (folder / name).read_bytes()
        for read in readers:
            read(folder)
            other = bytearray(whole)
            other[-2] ^= 1
            for changed, words in ((other, 'holds other bytes'), (whole + b' ', f'{len(whole) + 1} bytes, expected')):
                if name == 'sums.json' and changed != other:
                    continue  # white space says nothing else
                (folder / name).write_bytes(changed)
                words = 'is damaged' if name == 'sums.json' else words
                with pytest.raises(ValueError, match=f'tiny/{name}.* {words}.*; convert the weights again'):
                    read(folder)
                (folder / name).write_bytes(whole)
    (folder / 'vocab.txt').unlink()
    with pytest.raises(ValueError, match=r'vocab\.txt is missing; convert the weights again'):
        pretrained.find_tokenizer(folder)
    assert capfd.readouterr().err == ''
    (folder / 'sums.json').unlink()
    for _ in range(2):
        pretrained.load_pretrained(folder)
    assert capfd.readouterr().err.count('tiny has no sums.json: a file that was changed in it would go unseen') == 1


@pytest.mark.parametrize('seeds', [0, 3])
def test_a_part_is_replaced_and_the_rest_stays(seeds):
    before = model(seeds)
    after = pretrained.graft(before, WEIGHTS, path='encoder')
    np.testing.assert_array_equal(
        after['params']['encoder']['conv']['kernel'], np.ones_like(before['params']['encoder']['conv']['kernel'])
    )
    np.testing.assert_array_equal(after['params']['encoder']['conv']['bias'], 0)
    np.testing.assert_array_equal(after['batch_stats']['encoder']['norm']['mean'], 5)
    assert after['params']['head'] is not None
    np.testing.assert_array_equal(after['params']['head']['kernel'], 7)
    np.testing.assert_array_equal(before['params']['encoder']['conv']['bias'], 1)


def test_each_seed_may_have_its_own():
    loaded = {
        'params': {'conv': {'kernel': np.stack([np.full((3, 2), n) for n in range(2)]), 'bias': np.zeros((2, 2))}}
    }
    after = pretrained.graft(model(2), loaded, path='encoder', fresh=('norm',))
    assert after['params']['encoder']['conv']['kernel'][:, 0, 0].tolist() == [0, 1]


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (lambda w: w['params']['conv'].pop('bias'), 'params/encoder/conv/bias is in the model, but not loaded'),
        (lambda w: w['params'].update(extra={'kernel': np.ones(1)}), 'encoder/extra/kernel is loaded, but not in'),
        (lambda w: w['params']['conv'].update(bias=np.ones(9)), r'bias has shape \(9,\), the model wants \(2,\)'),
    ],
)
def test_what_does_not_fit_is_listed(change, message):
    weights = {name: {key: dict(value) for key, value in tree.items()} for name, tree in WEIGHTS.items()}
    change(weights)
    with pytest.raises(ValueError, match=message):
        pretrained.graft(model(), weights, path='encoder')
    with pytest.raises(ValueError, match="'vision' is no module of the model; it has encoder, head"):
        pretrained.graft(model(), WEIGHTS, path='vision')


def test_fresh_parameters_stay_where_they_are_allowed():
    weights = {'params': {'conv': {'kernel': np.ones((3, 2))}}, 'batch_stats': WEIGHTS['batch_stats']}
    after = pretrained.graft(model(), weights, path='encoder', fresh=('bias$',))
    np.testing.assert_array_equal(after['params']['encoder']['conv']['bias'], 1)


def test_what_is_fresh_begins_anew_even_if_it_is_loaded():
    """A first layer of other channels than the checkpoint's."""
    before = model()
    before['params']['encoder']['conv']['kernel'] = np.zeros((1, 2), np.float32)
    with pytest.raises(ValueError, match='has shape'):
        pretrained.graft(before, WEIGHTS, path='encoder')
    after = pretrained.graft(before, WEIGHTS, path='encoder', fresh=('^conv/kernel$',))
    np.testing.assert_array_equal(after['params']['encoder']['conv']['kernel'], np.zeros((1, 2)))
    np.testing.assert_array_equal(after['params']['encoder']['conv']['bias'], 0)


def test_a_projector_is_left_out_where_the_model_has_none():
    weights = {**WEIGHTS, 'params': {**WEIGHTS['params'], 'projector': {'kernel': np.ones((2, 2), np.float32)}}}
    after = pretrained.graft(model(), weights, path='encoder')
    assert 'projector' not in after['params']['encoder']
    with pytest.raises(ValueError, match='projector/bias is in the model, but not loaded'):
        before = model()
        before['params']['encoder']['projector'] = {'kernel': np.zeros((2, 2)), 'bias': np.zeros(2)}
        pretrained.graft(before, weights, path='encoder')


def test_sizes_come_from_the_weights(tmp_path):
    source = {'family': 'bert', 'fields': {'hidden_size': 8, 'num_layers': 2, 'projector': 8}}
    folder = str(pretrained.save_pretrained(tmp_path / 'tiny', WEIGHTS, source))
    fields = {'name': 'encoded', 'text': {'name': 'bert', 'num_layers': 1}, 'model': {'name': 'mfsa'}}
    filled = pretrained.fill_fields(fields, {'text': folder})
    assert filled['text'] == {'name': 'bert', 'hidden_size': 8, 'num_layers': 1, 'projector': 8}
    assert filled['model'] == fields['model']
    with pytest.raises(ValueError, match="holds weights of 'bert', config.model.text is 'vit'"):
        pretrained.fill_fields({'text': {'name': 'vit'}}, {'text': folder})
    del source['fields']['projector']  # as conversion wrote it once; the layer would silently be left out
    old = str(pretrained.save_pretrained(tmp_path / 'old', WEIGHTS, source))
    with pytest.raises(ValueError, match='old/source.json does not say how wide the projector is: convert it again'):
        pretrained.fill_fields(fields, {'text': old})
