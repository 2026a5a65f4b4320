"""What was said before a text: seen by its tokens, and by nothing behind the encoder."""

import jax
import numpy as np
import pytest

from mmer_jax.encoders.bert import Bert, Roberta
from tests.any_values import any_values

pytestmark = pytest.mark.usefixtures('strict_types')
TINY = {'hidden_size': 8, 'num_layers': 1, 'num_heads': 2, 'intermediate_size': 8, 'vocab_size': 20}
IDS = np.array([[2, 7, 9, 3, 11, 12, 3], [2, 5, 3, 13, 3, 0, 0]], np.int32)
TYPES = np.array([[0, 0, 0, 0, 1, 1, 1], [0, 0, 0, 1, 1, 0, 0]], np.int32)
MASK = np.array([[1, 1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 1, 0, 0]], bool)
OWN = MASK & (TYPES == 0)


def encode(encoder, ids=IDS, types=TYPES):
    x = np.stack([ids, types], axis=-1) if types is not None else ids
    variables = any_values(jax.eval_shape(lambda: encoder.init(jax.random.key(0), x, MASK, train=False)))

    def features_and_pooled(variables):
        features, mask = encoder.apply(variables, x, MASK, train=False)
        return features, mask, encoder.apply(variables, features, mask, train=False, method='pool')

    return [np.asarray(found) for found in jax.jit(features_and_pooled)(variables)]


@pytest.mark.parametrize('family', [Bert, Roberta])
def test_the_text_sees_its_context_and_what_is_behind_does_not(family):
    encoder = family(**TINY, max_positions=12, pooling='mean', context=True)
    features, mask, pooled = encode(encoder)
    np.testing.assert_array_equal(mask, OWN)
    assert (features[~OWN] == 0).all()
    for row in range(2):
        np.testing.assert_allclose(pooled[row], features[row][OWN[row]].mean(0), rtol=1e-5, atol=1e-6)
    other = IDS.copy()
    other[0, 4], other[1, 5] = 15, 16  # a token of the context, and one of the padding
    changed, _, _ = encode(encoder, ids=other)
    assert np.abs(changed[0] - features[0])[OWN[0]].max() > 1e-3
    np.testing.assert_array_equal(changed[1], features[1])


def test_only_the_mask_differs_from_two_texts():
    features, _, _ = encode(Bert(**TINY, context=True))
    both, whole, _ = encode(Bert(**TINY))
    np.testing.assert_array_equal(whole, MASK)
    np.testing.assert_allclose(features[OWN], both[OWN], rtol=1e-6)
    assert (both[MASK & ~OWN] != 0).all()


def test_types_are_seen_where_the_model_has_some():
    no_types = np.zeros_like(TYPES)
    with_types, without = (encode(Bert(**TINY), types=types)[0] for types in (TYPES, no_types))
    assert np.abs(with_types - without).max() > 1e-3
    sizes = {**TINY, 'max_positions': 12}
    with_types, without = (encode(Roberta(**sizes), types=types)[0] for types in (TYPES, no_types))
    np.testing.assert_array_equal(with_types, without)


def test_ids_without_types_have_no_context():
    with pytest.raises(ValueError, match=r'context: found token ids \(2, 7\) without types, expected \(B, T, 2\)'):
        encode(Bert(**TINY, context=True), types=None)
