"""CTC alignment: published sizes, the loss against torch and against a sum over all paths, and a toy it must align."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mmer_jax.fusion.ctc_alignment import AlignToAnchor, CtcAlignment, pool_to_positions
from mmer_jax.losses.alignment import ctc_alignment, ctc_alignment_padded

KEY = jax.random.key(0)


def masks(lengths, steps):
    return np.arange(steps) < np.asarray(lengths)[:, None]


def outputs_of(logits, mask, target_mask, m='audio'):
    return {f'ctc_logits_{m}': logits, f'ctc_mask_{m}': mask, 'ctc_target_mask': target_mask}


def log_softmax(logits):
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def apply_random(module, *inputs):
    """Outputs and variables of a module, its parameters drawn by numpy, which saves compiling the initialisation."""
    shapes = jax.eval_shape(lambda: module.init(KEY, *inputs, train=False))
    generator = np.random.default_rng(7)
    variables = jax.tree.map(lambda leaf: generator.standard_normal(leaf.shape).astype(leaf.dtype), shapes)
    return jax.jit(lambda variables: module.apply(variables, *inputs, train=False))(variables), variables


# The module


@pytest.mark.parametrize(
    ('size', 'positions', 'ours', 'published'),
    [
        (5, 50, 32_640, 33_048),
        (20, 50, 35_700, 36_108),
        (74, 50, 46_716, 47_124),
        (35, 50, 38_760, 39_168),
        (74, 20, 11_676, 11_844),
        (35, 20, 8_400, 8_568),
    ],
)
def test_sizes_are_the_published_ones_but_for_the_redundant_bias(size, positions, ours, published):
    module = CtcAlignment(positions)
    x, mask = jnp.zeros((1, 2, size)), jnp.ones((1, 2), bool)
    params = jax.eval_shape(lambda: module.init(KEY, x, mask, train=False))
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == ours
    second_bias = 2 * 4 * (positions + 1)
    assert ours + second_bias == published


def test_aligned_is_the_mass_of_the_valid_steps_times_their_features():
    generator = np.random.default_rng(0)
    mask = masks([6, 3, 0], 6)
    x = np.where(mask[..., None], generator.standard_normal((3, 6, 2)), np.nan).astype(np.float32)
    (aligned, logits), _ = apply_random(CtcAlignment(4), x, mask)
    expected = np.zeros((3, 4, 2))
    for row, position in itertools.product(range(3), range(4)):
        for t in range(mask[row].sum()):
            expected[row, position] += np.exp(log_softmax(np.asarray(logits)[row, t]))[position + 1] * x[row, t]
    np.testing.assert_allclose(aligned, expected, atol=1e-5)
    assert np.ptp(np.asarray(logits)[0]) > 0.01  # not the uniform alignment, which would hide an exchange of axes


# The loss

LENGTHS, TARGETS = [9, 7, 4, 3, 2, 5, 0, 0], [4, 3, 4, 4, 1, 0, 0, 2]  # rows 3 and 7 have fewer steps than words


def loss_example():
    logits = np.random.default_rng(1).standard_normal((8, 9, 5)).astype(np.float32)
    mask, target_mask = masks(LENGTHS, 9), masks(TARGETS, 4)
    return logits, mask, target_mask


def weighted_loss(logits, mask, target_mask):
    loss = ctc_alignment(outputs_of(logits, mask, target_mask), {})
    return (loss * (1 + jnp.arange(len(loss)))).sum(), loss


value_and_gradient = jax.jit(jax.value_and_grad(weighted_loss, has_aux=True))
both_losses = jax.jit(lambda outputs: (ctc_alignment(outputs, {}), ctc_alignment_padded(outputs, {})))


def test_loss_and_gradient_equal_torch():
    torch = pytest.importorskip('torch')
    logits, mask, target_mask = loss_example()
    (_, loss), gradient = value_and_gradient(logits, mask, target_mask)
    rows = slice(0, 6)  # torch has no defined value for rows without steps
    leaf = torch.tensor(logits[rows], requires_grad=True)
    expected = torch.nn.functional.ctc_loss(
        leaf.log_softmax(-1).transpose(0, 1),
        torch.arange(1, 5).expand(6, 4),
        torch.tensor(LENGTHS[rows]),
        torch.tensor(TARGETS[rows]),
        reduction='none',
        zero_infinity=True,
    )
    (expected * torch.arange(1, 7)).sum().backward()
    np.testing.assert_allclose(loss[rows], expected.detach().numpy(), rtol=1e-5)
    np.testing.assert_allclose(gradient[rows], leaf.grad.numpy(), atol=1e-5)
    assert (np.asarray(loss)[[0, 1, 2, 4, 5]] > 0.1).all()


def test_loss_is_the_sum_over_all_paths():
    logits = np.random.default_rng(2).standard_normal((1, 5, 3))
    probability = np.exp(log_softmax(logits))[0]
    total = 0.0
    for path in itertools.product(range(3), repeat=5):
        collapsed = [label for label, _ in itertools.groupby(path) if label]
        total += np.prod(probability[np.arange(5), path]) if collapsed == [1, 2] else 0
    loss, _ = both_losses(outputs_of(logits.astype(np.float32), masks([5], 5), masks([2], 2)))
    np.testing.assert_allclose(loss, [-np.log(total)], rtol=1e-5)


def test_rows_without_a_path_and_padding_rows_count_nothing():
    logits, mask, target_mask = loss_example()
    garbage = np.where(mask[..., None], logits, np.nan)
    (_, loss), gradient = value_and_gradient(garbage, mask, target_mask)
    np.testing.assert_array_equal(np.asarray(loss)[[3, 6, 7]], 0)
    np.testing.assert_array_equal(np.asarray(gradient)[[3, 6, 7]], 0)
    assert np.isfinite(loss).all()
    assert np.isfinite(gradient).all()
    (_, clean), clean_gradient = value_and_gradient(logits, mask, target_mask)
    np.testing.assert_array_equal(loss, clean)
    np.testing.assert_array_equal(gradient, clean_gradient)
    assert np.asarray(clean_gradient)[0].any()


def test_padded_targets_are_those_of_a_full_text():
    logits, mask, target_mask = loss_example()
    own, published = map(np.asarray, both_losses(outputs_of(logits, mask, target_mask)))
    full, _ = both_losses(outputs_of(logits, mask, np.ones_like(target_mask)))
    np.testing.assert_array_equal(published, full)
    assert published[0] == own[0]  # a full row
    assert abs(published[1] - own[1]) > 0.1


def test_aligned_modalities_add_up_and_none_is_zero():
    logits, mask, target_mask = loss_example()
    audio, vision = outputs_of(logits, mask, target_mask), outputs_of(-logits, mask, target_mask, 'vision')
    (both, _), (one, _) = both_losses({**audio, **vision}), both_losses(audio)
    (other, _) = both_losses(outputs_of(-logits, mask, target_mask))
    np.testing.assert_allclose(both, one + other, rtol=1e-6)
    assert one[0] != other[0]
    np.testing.assert_array_equal(both_losses({'ctc_target_mask': target_mask})[0], np.zeros(8))


@pytest.mark.parametrize('loss', [ctc_alignment, ctc_alignment_padded])
def test_loss_names_what_is_missing_or_does_not_fit(loss):
    logits, mask, target_mask = loss_example()
    with pytest.raises(ValueError, match=rf"^{loss.__name__}: .*no ctc_target_mask.*'prediction'"):
        loss({'prediction': logits}, {})
    with pytest.raises(ValueError, match='for 3 positions; expected 4 classes'):
        loss(outputs_of(logits, mask, target_mask[:, :3]), {})


# Pooling


def test_pooling_by_hand():
    x = np.array([[[1], [3], [5], [9]], [[2], [4], [8], [np.nan]], [[6], [np.nan], [0], [0]]], np.float32)
    x = np.concatenate([x, x[:1]])
    pooled = pool_to_positions(x, masks([4, 3, 1, 0], 4), masks([2, 2, 3, 2], 3))
    # 3 steps in 2 shares: steps 0 and 1, then 1 and 2; a single step stands at every position.
    np.testing.assert_allclose(pooled[..., 0], [[2, 7, 0], [3, 6, 0], [6, 6, 6], [0, 0, 0]])


def test_pooling_equals_torch():
    torch = pytest.importorskip('torch')
    x = np.random.default_rng(3).standard_normal((1, 7, 2)).astype(np.float32)
    for positions in (1, 3, 7, 10):
        expected = torch.nn.functional.adaptive_avg_pool1d(torch.tensor(x).transpose(1, 2), positions).transpose(1, 2)
        pooled = pool_to_positions(x, masks([7], 7), masks([positions], positions))
        np.testing.assert_allclose(pooled, expected.numpy(), atol=1e-6)


# Alignment to an anchor


def make_batch(steps, lengths, sizes, seed=4):
    generator = np.random.default_rng(seed)
    batch = {}
    for m in steps:
        batch[m] = generator.standard_normal((len(lengths[m]), steps[m], sizes[m])).astype(np.float32)
        batch[f'{m}_mask'] = masks(lengths[m], steps[m])
    return batch


def align(batch, modalities, anchor='text', positions=4, **fields):
    outputs, variables = apply_random(AlignToAnchor(anchor, positions, **fields), batch, modalities)
    return *outputs, variables


TRIMODAL = make_batch(
    {'text': 6, 'audio': 9, 'vision': 1},
    {'text': [6, 3, 0], 'audio': [9, 5, 0], 'vision': [1, 1, 0]},
    {'text': 3, 'audio': 2, 'vision': 5},
)
ALL = ('text', 'audio', 'vision')


def test_text_is_cut_audio_gets_a_ctc_module_and_a_vector_is_repeated():
    aligned, mask, extras, variables = align(TRIMODAL, ALL)
    np.testing.assert_array_equal(mask, masks([4, 3, 0], 4))
    np.testing.assert_array_equal(aligned['text'], np.where(mask[..., None], TRIMODAL['text'][:, :4], 0))
    np.testing.assert_array_equal(aligned['vision'], np.where(mask[..., None], TRIMODAL['vision'], 0))
    assert aligned['audio'].shape == (3, 4, 2)
    assert not np.asarray(aligned['audio'])[~np.asarray(mask)].any()
    assert np.asarray(aligned['audio'])[np.asarray(mask)].all()
    assert list(variables['params']) == ['audio_ctc']
    assert set(extras) == {'ctc_logits_audio', 'ctc_mask_audio', 'ctc_target_mask'}
    assert extras['ctc_logits_audio'].shape == (3, 9, 5)
    np.testing.assert_array_equal(extras['ctc_mask_audio'], TRIMODAL['audio_mask'])


def test_pool_has_neither_parameters_nor_extras():
    aligned, mask, extras, variables = align(TRIMODAL, ALL, align='pool')
    assert not variables
    assert not extras
    for m in ('audio', 'vision'):
        np.testing.assert_array_equal(aligned[m], pool_to_positions(TRIMODAL[m], TRIMODAL[f'{m}_mask'], mask))


def test_a_long_anchor_other_than_text_is_pooled_not_cut():
    aligned, mask, _, _ = align(TRIMODAL, ('audio', 'vision'), anchor='audio', positions=3)
    np.testing.assert_array_equal(mask, masks([3, 3, 0], 3))
    expected = TRIMODAL['audio'][0].reshape(3, 3, 2).mean(1)
    np.testing.assert_allclose(aligned['audio'][0], expected, rtol=1e-5)
    short, mask, _, _ = align(TRIMODAL, ('audio', 'vision'), anchor='audio', positions=12)
    np.testing.assert_array_equal(mask, masks([9, 5, 0], 12))
    np.testing.assert_allclose(short['audio'][1, :5], TRIMODAL['audio'][1, :5], rtol=1e-6)


def test_word_aligned_data_are_taken_as_they_are():
    lengths = {m: [5, 2] for m in ALL}
    batch = make_batch(dict.fromkeys(ALL, 5), lengths, {'text': 3, 'audio': 2, 'vision': 4})
    batch['audio'][1, 2:] = np.nan
    aligned, mask, extras, variables = align(batch, ALL, align='none', positions=2)
    assert not variables
    assert not extras
    np.testing.assert_array_equal(mask, batch['text_mask'])
    for m in ALL:
        np.testing.assert_array_equal(aligned[m], np.where(mask[..., None], batch[m], 0))


def test_wrong_alignment_says_what_was_found():
    with pytest.raises(ValueError, match=r"one number of steps.*'text': 6, 'audio': 9, 'vision': 1"):
        align(TRIMODAL, ALL, align='none')
    with pytest.raises(ValueError, match=r"align = 'ctcc': expected 'ctc', 'pool' or 'none'"):
        align(TRIMODAL, ALL, align='ctcc')


# Learning


def segments(rows, seed):
    """Sequences of 12 steps in one to four runs of unequal lengths; a step of run k is the unit vector k and noise.

    Nothing but the runs tells how many positions there are, so counting steps does not do.
    """
    generator = np.random.default_rng(seed)
    run = np.zeros((rows, 12), int)
    for row in run:
        for cut in generator.choice(np.arange(2, 12, 2), generator.integers(4), replace=False):
            row[cut:] += 1
    noise = 0.1 * generator.standard_normal((rows, 12, 4))
    return (np.eye(4)[run] + noise).astype(np.float32), masks(run.max(1) + 1, 4)


def test_the_loss_alone_finds_a_monotone_alignment():
    module, optimizer, mask = CtcAlignment(4), optax.adam(0.03), np.ones((32, 12), bool)

    def loss_of(params, x, target_mask):
        _, logits = module.apply(params, x, mask, train=True)
        return ctc_alignment(outputs_of(logits, mask, target_mask), {}).mean()

    def step(carry, batch):
        params, opt_state = carry
        loss, gradient = jax.value_and_grad(loss_of)(params, *batch)
        updates, opt_state = optimizer.update(gradient, opt_state)
        return (optax.apply_updates(params, updates), opt_state), loss

    @jax.jit
    def train(batches):
        params = module.init(KEY, batches[0][0], mask, train=False)
        (params, _), losses = jax.lax.scan(step, (params, optimizer.init(params)), batches)
        return params, losses

    batches = [segments(32, seed) for seed in range(250)]
    params, losses = train(tuple(map(np.stack, zip(*batches, strict=True))))
    assert losses[-1] < 0.6 * losses[0]

    # On sequences it has not seen, the step that is surest of position k lies in run k.
    x, target_mask = segments(32, 999)
    _, logits = jax.jit(lambda x: module.apply(params, x, mask, train=False))(x)
    surest = np.asarray(jax.nn.softmax(logits))[..., 1:].argmax(1)
    right = np.take_along_axis(x.argmax(-1), surest, 1) == np.arange(4)
    assert right[target_mask].mean() > 0.95
