"""Protocols: who is in which set, what is marked, and what is refused."""

import dataclasses

import numpy as np
import pytest
from sklearn.model_selection import train_test_split

from mmer_jax.data import protocols
from mmer_jax.data.protocols import Fold, check_folds, make_folds


def manifest_of(speakers, sessions=None, splits=None):
    """A manifest with one record for each speaker of the list."""
    count = len(speakers)
    return {
        'record': np.arange(count),
        'id': np.array([f'clip{number}' for number in range(count)]),
        'speaker': np.array(list(speakers), dtype=str),
        'session': np.array(list(sessions or [''] * count), dtype=str),
        'split': np.array(splits or [''] * count, dtype=str),
        'label': np.arange(count) % 2,
    }


def ravdess(actors, clips=3):
    """Clips of actors 1..n in a mixed order; numbers without leading zeros, as some folders have them."""
    order = np.random.default_rng(3).permutation(np.repeat(np.arange(1, actors + 1), clips))
    return manifest_of([str(actor) for actor in order]) | {'gender': np.where(order % 2, 'male', 'female')}


def iemocap(clips=4):
    """Five sessions of a woman and a man each."""
    session = np.repeat(np.arange(1, 6), 2 * clips)
    sex = np.tile(['F', 'M'], 5 * clips)
    return manifest_of([f'Ses{s:02}{x}' for s, x in zip(session, sex, strict=True)], [f'Session{s}' for s in session])


def people(manifest, record):
    return sorted({int(speaker) for speaker in manifest['speaker'][record]})


def sets(fold):
    return fold.train, fold.validation, fold.test


HONEST = [
    (ravdess(20), 'leave_speakers_out', {}),
    (ravdess(24), 'leave_speakers_out', {'folds': 6}),
    (ravdess(24), 'leave_speakers_out', {}),
    (ravdess(24), 'leave_speakers_out', {'speakers_per_fold': 4, 'balance': 'gender'}),
    (ravdess(22), 'leave_speakers_out', {'speakers_per_fold': 4}),
    (ravdess(24), 'speaker_disjoint_random', {}),
    (ravdess(24), 'speaker_disjoint_random', {'folds': 5, 'seed': 4}),
    (iemocap(), 'leave_sessions_out', {}),
    (iemocap(), 'leave_sessions_out', {'test_sessions': 2, 'validation_sessions': 2}),
    (manifest_of('abc', splits=protocols.SPLITS), 'official_split', {}),
]


@pytest.mark.parametrize(('manifest', 'name', 'options'), HONEST)
def test_honest_protocols_have_no_marks(manifest, name, options):
    folds = make_folds(manifest, name, **options)
    for fold in folds:
        assert fold.marks == ()
        # Together the three sets hold each record exactly once, and no speaker is in two of them.
        np.testing.assert_array_equal(np.sort(np.concatenate(sets(fold))), manifest['record'])
        speakers = [set(manifest['speaker'][one]) for one in sets(fold)]
        assert sum(map(len, speakers)) == len(set(manifest['speaker']))
        for one in sets(fold):
            assert one.dtype == np.int64
            assert (np.diff(one) > 0).all()
    if len(folds) > 1:
        np.testing.assert_array_equal(np.sort(np.concatenate([f.test for f in folds])), manifest['record'])
        assert [fold.name for fold in folds] == [f'fold_{number}' for number in range(len(folds))]
    else:
        assert folds[0].name == 'all'


@pytest.mark.parametrize(
    ('manifest', 'name', 'options'),
    [
        *HONEST,
        (ravdess(24), 'random_clips_shared_speakers', {'selection': 'test'}),
        (ravdess(24), 'random_clips_shared_speakers', {'validation_fraction': 0.1}),
    ],
)
def test_order_of_rows_changes_nothing(manifest, name, options):
    order = np.random.default_rng(0).permutation(len(manifest['record']))
    shuffled = {key: column[order] for key, column in manifest.items()}
    for one, other in zip(make_folds(manifest, name, **options), make_folds(shuffled, name, **options), strict=True):
        assert one.marks == other.marks
        for a, b in zip(sets(one), sets(other), strict=True):
            np.testing.assert_array_equal(a, b)


def test_record_numbers_are_kept_when_a_manifest_is_filtered():
    manifest = ravdess(20)
    kept = manifest['record'] % 3 != 0
    manifest = {key: column[kept] for key, column in manifest.items()}
    for fold in make_folds(manifest, 'leave_speakers_out'):
        np.testing.assert_array_equal(np.sort(np.concatenate(sets(fold))), manifest['record'])


# ---- official split ------------------------------------------------------------------------------------------


def test_official_split():
    manifest = manifest_of('abcd', splits=['test', 'train', 'validation', 'train'])
    (fold,) = make_folds(manifest, 'official_split')
    assert [one.tolist() for one in sets(fold)] == [[1, 3], [2], [0]]
    assert (fold.name, fold.marks) == ('all', ())


def test_official_split_marks_what_is_so():
    manifest = manifest_of('aabb', splits=['train', 'validation', 'test', ''])
    (fold,) = make_folds(manifest, 'official_split')
    assert fold.marks == (
        'validation speakers shared (1 of 1 validation speakers are in train)',
        '1 of 4 records in no split',
    )
    manifest = manifest_of('abab', splits=['train', 'validation', 'test', 'test'])
    (fold,) = make_folds(manifest, 'official_split')
    assert fold.marks == ('speakers shared (1 of 2 test speakers are in train)',)


def test_validation_speakers_shared_with_test_are_marked():
    (fold,) = make_folds(manifest_of('abb', splits=protocols.SPLITS), 'official_split')
    assert fold.marks == ('validation speakers shared (1 of 1 validation speakers are in test)',)


def test_unknown_speakers_are_marked():
    (fold,) = make_folds(manifest_of(['', '', 'c'], splits=protocols.SPLITS), 'official_split')
    assert fold.marks == ('speakers unknown (2 of 3 records)',)


def test_official_split_errors():
    with pytest.raises(ValueError, match=r"holds \['dev', 'valid'\]: expected only \['train', 'validation', 'test'\]"):
        make_folds(manifest_of('abc', splits=['train', 'dev', 'valid']), 'official_split')
    with pytest.raises(ValueError, match=r"official_split needs the column 'split'.*'validation' \(0 of 2"):
        make_folds(manifest_of('ab', splits=['train', 'test']), 'official_split')
    with pytest.raises(ValueError, match=r'\(2 of 2 are empty\); choose a protocol.*leave_speakers_out'):
        make_folds(manifest_of('ab'), 'official_split')


# ---- sessions ------------------------------------------------------------------------------------------------


def test_leave_one_session_out_is_3_1_1():
    manifest = iemocap()
    folds = make_folds(manifest, 'leave_sessions_out')
    assert len(folds) == 5
    for number, fold in enumerate(folds):
        train, validation, test = (sorted(set(manifest['session'][one])) for one in sets(fold))
        assert test == [f'Session{number + 1}']
        assert validation == [f'Session{(number + 1) % 5 + 1}']
        assert len(train) == 3


def test_groups_of_sessions():
    manifest = iemocap()
    folds = make_folds(manifest, 'leave_sessions_out', test_sessions=2)
    assert [sorted({s[-1] for s in manifest['session'][f.test]}) for f in folds] == [['1', '2'], ['3', '4'], ['5']]
    assert [sorted({s[-1] for s in manifest['session'][f.validation]}) for f in folds] == [['3'], ['5'], ['1']]


def test_speakers_who_move_between_sessions_are_marked():
    folds = make_folds(manifest_of('abca', sessions='1234'), 'leave_sessions_out')
    shared = 'speakers shared (1 of 1 test speakers are in train)'
    # a is in sessions 1 and 4: fold 0 tests on 1 and trains on 4; fold 2 trains on 1 and validates on 4.
    assert folds[0].marks == (shared,)
    assert folds[1].marks == ()
    assert folds[2].marks == ('validation speakers shared (1 of 1 validation speakers are in train)',)
    # Fold 3 tests on 4 and validates on 1.
    assert folds[3].marks == ('validation speakers shared (1 of 1 validation speakers are in test)',)


def test_too_few_sessions():
    with pytest.raises(ValueError, match=r'2 sessions \(1, 2\), expected at least 3'):
        make_folds(manifest_of('ab', sessions='12'), 'leave_sessions_out')
    with pytest.raises(ValueError, match=r'5 sessions .* expected at least 6: 1 to test, 4 to validate'):
        make_folds(iemocap(), 'leave_sessions_out', validation_sessions=4)
    with pytest.raises(ValueError, match="leave_sessions_out needs the column 'session', which is empty for 3 of 3"):
        make_folds(manifest_of('abc'), 'leave_sessions_out')
    with pytest.raises(ValueError, match='validation_sessions is 0, expected a whole number of at least 1'):
        make_folds(iemocap(), 'leave_sessions_out', validation_sessions=0)


# ---- speakers ------------------------------------------------------------------------------------------------


BY_FOUR = {'speakers_per_fold': 4, 'validation_speakers': 2, 'balance': 'gender'}  # what the configs of RAVDESS ask


@pytest.mark.parametrize(('actors', 'folds'), [(20, 5), (24, 6)])
@pytest.mark.parametrize('by', ['number', 'size', 'size and gender'])
def test_ravdess_folds_are_consecutive_and_balanced(actors, folds, by):
    """Two men and two women are tested, a man and a woman validate; 20 of 24 are not tested, as in CFN-SR's 5:1."""
    manifest = ravdess(actors)
    options = {'number': {'folds': folds}, 'size': {'speakers_per_fold': 4}, 'size and gender': BY_FOUR}[by]
    made = make_folds(manifest, 'leave_speakers_out', **options)
    assert [people(manifest, fold.test) for fold in made] == [
        list(range(first, first + 4)) for first in range(1, actors, 4)
    ]
    for fold in made:
        assert fold.marks == ()
        for one, count in zip(sets(fold), (actors - 6, 2, 4), strict=True):
            actor = np.array(people(manifest, one))
            assert len(actor) == count
            assert np.sum(actor % 2 == 1) == np.sum(actor % 2 == 0)
    # The validation speakers follow the test group; after the last group they are the first two.
    assert people(manifest, made[0].validation) == [5, 6]
    assert people(manifest, made[-1].validation) == [1, 2]


def test_groups_are_balanced_where_actors_are_missing():
    """Six men and two women stand at 1/12, 3/12, ... and at 1/4, 3/4: m f m m | m f m m, ties by number."""
    actors = [1, 2, 3, 4, 5, 7, 9, 11]
    manifest = manifest_of(list(map(str, actors)))
    manifest['gender'] = np.where(np.array(actors) % 2, 'male', 'female')
    plain, balanced = (
        make_folds(manifest, 'leave_speakers_out', **{**BY_FOUR, 'balance': balance}) for balance in (None, 'gender')
    )
    assert [people(manifest, fold.test) for fold in plain] == [[1, 2, 3, 4], [5, 7, 9, 11]]
    assert [people(manifest, fold.test) for fold in balanced] == [[1, 2, 3, 5], [4, 7, 9, 11]]
    assert [people(manifest, fold.validation) for fold in balanced] == [[4, 7], [1, 2]]
    # One woman stands in the middle of four men, at 1/2 between 3/8 and 5/8.
    manifest = manifest_of('12357') | {'gender': np.array(['m', 'f', 'm', 'm', 'm'])}
    options = {'speakers_per_fold': 2, 'validation_speakers': 1, 'balance': 'gender'}
    folds = make_folds(manifest, 'leave_speakers_out', **options)
    assert [people(manifest, fold.test) for fold in folds] == [[1, 3], [2, 5], [7]]


def test_two_values_are_balanced_to_within_one_speaker():
    generator = np.random.default_rng(0)
    for _ in range(50):
        count, share = generator.integers(8, 60), generator.uniform(0.1, 0.9)
        value = generator.random(count) < share
        manifest = manifest_of([f's{number}' for number in range(count)]) | {'group': np.where(value, 'a', 'b')}
        sizes = {'speakers_per_fold': int(generator.integers(2, count // 2))}
        for options in (sizes, {'folds': 3}):
            options |= {'balance': 'group', 'validation_speakers': 1}
            for fold in make_folds(manifest, 'leave_speakers_out', **options):
                assert abs(value[fold.test].sum() - value.mean() * len(fold.test)) <= 1


def test_the_last_group_is_what_is_left():
    manifest = ravdess(22)
    made = make_folds(manifest, 'leave_speakers_out', speakers_per_fold=4)
    assert [people(manifest, fold.test) for fold in made][-2:] == [[17, 18, 19, 20], [21, 22]]
    assert len(made) == 6
    assert people(manifest, made[-1].validation) == [1, 2]


def test_everybody_is_tested_when_groups_are_uneven():
    manifest = ravdess(24)
    made = make_folds(manifest, 'leave_speakers_out', validation_speakers=1)
    assert [len(people(manifest, fold.test)) for fold in made] == [5, 5, 5, 5, 4]


def test_cfn_sr_as_published_is_marked():
    manifest = ravdess(24)
    made = make_folds(manifest, 'leave_speakers_out', speakers_per_fold=4, max_folds=5, selection='test')
    assert len(made) == 5
    for number, fold in enumerate(made):
        assert fold.marks == ('selected on test', '12 of 72 records never tested')
        assert people(manifest, fold.test) == list(range(4 * number + 1, 4 * number + 5))
        np.testing.assert_array_equal(fold.validation, fold.test)
        assert len(people(manifest, fold.train)) == 20
    assert all({21, 22, 23, 24} <= set(people(manifest, fold.train)) for fold in made)


def test_selection_on_test_alone_is_marked():
    for fold in make_folds(ravdess(20), 'leave_speakers_out', selection='test'):
        assert fold.marks == ('selected on test',)


def test_leave_speakers_out_errors():
    manifest = ravdess(6)
    with pytest.raises(ValueError, match='6 speakers are too few for 7 folds'):
        make_folds(manifest, 'leave_speakers_out', folds=7)
    with pytest.raises(ValueError, match='6 speakers are too few for groups of 6; expected 7 or more'):
        make_folds(manifest, 'leave_speakers_out', speakers_per_fold=6)
    with pytest.raises(ValueError, match='folds=3 and speakers_per_fold=2 both size the groups; expected one of them'):
        make_folds(manifest, 'leave_speakers_out', folds=3, speakers_per_fold=2)
    with pytest.raises(ValueError, match='max_folds is 1, expected a whole number of at least 2'):
        make_folds(manifest, 'leave_speakers_out', max_folds=1)
    with pytest.raises(ValueError, match="balance='sex' needs the column 'sex', which the manifest does not have"):
        make_folds(manifest, 'leave_speakers_out', folds=3, balance='sex')
    moved = np.where(manifest['record'] == 0, 'unknown', manifest['gender'])
    with pytest.raises(
        ValueError, match="one value a speaker, but speaker '[0-9]' has '(fe)?male' and 'unknown' there"
    ):
        make_folds(manifest | {'gender': moved}, 'leave_speakers_out', folds=3, balance='gender')
    with pytest.raises(ValueError, match='of 6 speakers 3 test and 3 validate, which leaves nobody'):
        make_folds(manifest, 'leave_speakers_out', folds=2, validation_speakers=3)
    with pytest.raises(ValueError, match="selection is 'train', expected 'validation' or 'test'"):
        make_folds(manifest, 'leave_speakers_out', selection='train')
    with pytest.raises(ValueError, match=r'folds is 2\.5, expected a whole number of at least 2'):
        make_folds(manifest, 'leave_speakers_out', folds=2.5)
    with pytest.raises(ValueError, match='speakers_per_fold is 0'):
        make_folds(manifest, 'leave_speakers_out', speakers_per_fold=0)
    manifest['speaker'][3] = ''
    with pytest.raises(ValueError, match=r"needs the column 'speaker', which is empty for 1 of 18 .*first: record 3"):
        make_folds(manifest, 'leave_speakers_out')


# ---- random splits -------------------------------------------------------------------------------------------


@pytest.mark.parametrize('options', [{}, {'folds': 4}])
def test_random_speakers_follow_the_seed(options):
    manifest = ravdess(24)
    first, again, other = (
        [fold.test.tolist() for fold in make_folds(manifest, 'speaker_disjoint_random', seed=seed, **options)]
        for seed in (1, 1, 2)
    )
    assert first == again
    assert first != other


def test_random_speakers_are_these():
    # Pinned: a published split must not move. RandomState(0).permutation(10) is 2 8 4 9 1 6 7 3 0 5.
    manifest = manifest_of(list('abcdefghij'))
    (fold,) = make_folds(manifest, 'speaker_disjoint_random')
    assert [one.tolist() for one in sets(fold)] == [[0, 1, 3, 5, 6, 7, 9], [4], [2, 8]]


def test_random_speaker_fractions():
    manifest = ravdess(20)
    (fold,) = make_folds(manifest, 'speaker_disjoint_random', test_fraction=0.3, validation_fraction=0.15)
    assert [len(people(manifest, one)) for one in sets(fold)] == [11, 3, 6]


def test_random_speaker_errors():
    manifest = ravdess(4)
    with pytest.raises(ValueError, match=r'folds=3 tests 1/3 in each; expected no test_fraction'):
        make_folds(manifest, 'speaker_disjoint_random', folds=3, test_fraction=0.2)
    with pytest.raises(ValueError, match=r'test_fraction is 1\.5, expected a fraction above 0 and below 1'):
        make_folds(manifest, 'speaker_disjoint_random', test_fraction=1.5)
    with pytest.raises(ValueError, match='validation_fraction is 0, expected'):
        make_folds(manifest, 'speaker_disjoint_random', validation_fraction=0)
    for protocol in ('speaker_disjoint_random', 'random_clips_shared_speakers'):
        with pytest.raises(ValueError, match="validation_fraction is '0.1', expected a fraction above 0 and below 1"):
            make_folds(manifest, protocol, validation_fraction='0.1')
    with pytest.raises(ValueError, match='4 speakers are too few for 5 folds'):
        make_folds(manifest, 'speaker_disjoint_random', folds=5)
    with pytest.raises(ValueError, match='leaves nobody to train on'):
        make_folds(manifest, 'speaker_disjoint_random', test_fraction=0.8)
    with pytest.raises(ValueError, match='seed is -1'):
        make_folds(manifest, 'speaker_disjoint_random', seed=-1)


def test_shared_encoders_split_as_published_is_marked():
    manifest = ravdess(11, clips=19)  # 209 clips: a fifth is 41.8, and 42 are tested
    (fold,) = make_folds(manifest, 'random_clips_shared_speakers', selection='test')
    assert fold.marks == ('selected on test', 'speakers shared (11 of 11 test speakers are in train)')
    train, test = train_test_split(np.arange(209), test_size=0.2, random_state=42)
    np.testing.assert_array_equal(fold.test, np.sort(test))
    np.testing.assert_array_equal(fold.train, np.sort(train))


def test_random_clips_with_validation():
    manifest = ravdess(10, clips=20)
    options = {'test_fraction': 0.25, 'validation_fraction': 0.1}
    (fold,) = make_folds(manifest, 'random_clips_shared_speakers', **options)
    assert [len(one) for one in sets(fold)] == [130, 20, 50]
    assert fold.marks == ('speakers shared (10 of 10 test speakers are in train)',)
    (other,) = make_folds(manifest, 'random_clips_shared_speakers', seed=43, **options)
    assert fold.test.tolist() != other.test.tolist()


def test_random_clip_errors():
    manifest = ravdess(4)
    with pytest.raises(ValueError, match=r"validation_fraction is 0\.0, expected .* or selection='test'"):
        make_folds(manifest, 'random_clips_shared_speakers')
    with pytest.raises(ValueError, match=r'expected validation_fraction=0, found 0\.1'):
        make_folds(manifest, 'random_clips_shared_speakers', selection='test', validation_fraction=0.1)
    with pytest.raises(ValueError, match='of 12 records 6 test and 6 validate, which leaves none'):
        make_folds(manifest, 'random_clips_shared_speakers', test_fraction=0.5, validation_fraction=0.5)
    with pytest.raises(ValueError, match='test_fraction is 0, expected'):
        make_folds(manifest, 'random_clips_shared_speakers', test_fraction=0, selection='test')


# ---- make_folds and check_folds ------------------------------------------------------------------------------


def test_unknown_names_list_the_known_ones():
    with pytest.raises(ValueError, match="no protocol 'kfold': expected one of official_split, leave_sessions_out"):
        make_folds(ravdess(4), 'kfold')
    with pytest.raises(ValueError, match="leave_sessions_out has no option 'k': expected validation_sessions, test"):
        make_folds(iemocap(), 'leave_sessions_out', k=5)
    with pytest.raises(ValueError, match="official_split has no option 'seed' or 'k': expected none"):
        make_folds(iemocap(), 'official_split', seed=5, k=3)


@pytest.mark.parametrize(
    ('name', 'column'),
    [
        ('official_split', 'split'),
        ('leave_sessions_out', 'session'),
        ('leave_speakers_out', 'speaker'),
        ('speaker_disjoint_random', 'speaker'),
    ],
)
def test_missing_column(name, column):
    manifest = iemocap()
    del manifest[column]
    with pytest.raises(ValueError, match=f"{name} needs the column '{column}'.*it has: record, id.*prepare"):
        make_folds(manifest, name)


def test_broken_manifests():
    manifest = ravdess(6)
    with pytest.raises(ValueError, match=r"'speaker' has shape \(17,\): expected \(18,\)"):
        make_folds(manifest | {'speaker': manifest['speaker'][1:]}, 'leave_speakers_out')
    with pytest.raises(ValueError, match="'record' has 18 rows but 9 different"):
        make_folds(manifest | {'record': manifest['record'] // 2}, 'leave_speakers_out')
    with pytest.raises(ValueError, match=r"'record' has shape .* type float64: expected one whole number"):
        make_folds(manifest | {'record': manifest['record'] * 1.0}, 'leave_speakers_out')
    with pytest.raises(ValueError, match='at least one record'):
        make_folds({key: column[:0] for key, column in manifest.items()}, 'leave_speakers_out')
    with pytest.raises(ValueError, match=r"no column 'record' \(it has: id\)"):
        check_folds([Fold('all', *np.arange(3)[:, None])], {'id': np.array(['a'])})


FOLD = Fold('all', np.array([4, 0, 1]), np.array([2]), np.array([3]))
BROKEN = [
    ({'test': np.array([], int)}, r"fold 'all': the test set has shape \(0,\): expected .* at least one"),
    ({'validation': np.array([], int)}, 'the validation set has shape'),
    ({'train': np.array([0, 6])}, 'train set holds record 6, and 0 more, out of range: the manifest has 6 records'),
    ({'train': np.array([-1, 0])}, 'train set holds record -1'),
    ({'train': np.array([0, 0, 1])}, 'train set repeats 1 of its 3 records'),
    ({'train': np.array([0, 3])}, r'train and test share 1 records \(first: 3\); expected none$'),
    ({'train': np.array([0, 2])}, 'train and validation share 1 records'),
    ({'validation': np.array([2, 3])}, r'validation and test share 1 records .* or two identical sets'),
    ({'train': np.array([True, False])}, 'train set has type bool: expected record numbers'),
    ({'train': np.array([[0, 1]])}, r'train set has shape \(1, 2\)'),
]


@pytest.mark.parametrize(('change', 'message'), BROKEN)
def test_broken_folds(change, message):
    with pytest.raises(ValueError, match=message):
        check_folds([dataclasses.replace(FOLD, **change)], manifest_of('abcdef'))


def test_folds_need_names_of_their_own():
    with pytest.raises(ValueError, match=r"named \['all', 'all'\]"):
        check_folds([FOLD, FOLD], manifest_of('abcdef'))
    with pytest.raises(ValueError, match='at least one fold'):
        check_folds([], manifest_of('abcdef'))


def test_marks_are_computed_and_not_declared():
    claimed = dataclasses.replace(FOLD, marks=('perfect',))
    (fold,) = check_folds([claimed], manifest_of('abcdee'))
    # Speaker e has records 4 (train) and 5 (nowhere).
    assert fold.marks == ('1 of 6 records in no split',)
    assert fold.train.tolist() == [0, 1, 4]
    assert claimed.marks == ('perfect',)


def test_records_tested_again_or_never_are_marked_on_every_fold():
    one = Fold('fold_0', np.array([0, 1]), np.array([2]), np.array([3, 4]))
    two = Fold('fold_1', np.array([0, 1]), np.array([2]), np.array([4, 3]))
    for fold in check_folds([one, two], manifest_of('abcde')):
        assert fold.marks == ('3 of 5 records never tested', '2 of 5 records tested more than once')
    (alone,) = check_folds([one], manifest_of('abcde'))
    assert alone.marks == ()


def test_a_fold_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        FOLD.test = np.array([1])


def test_resubstitution_trains_and_tests_on_all_and_says_so():
    manifest = {'record': np.array([2, 0, 1]), 'speaker': np.array(['a', 'b', 'a'])}
    (fold,) = make_folds(manifest, 'resubstitution')
    for split in (fold.train, fold.validation, fold.test):
        np.testing.assert_array_equal(split, [0, 1, 2])
    assert fold.marks[0] == 'tested on the training records'
    assert 'selected on test' not in fold.marks
