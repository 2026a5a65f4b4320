"""results.json and metrics.jsonl of a damaged or foreign run: one line that names file, key, value and what to do."""

import json

import pytest

from mmer_jax.files import read_json, read_jsonl, write_json
from mmer_jax.results.runs import ReportError, read_run
from mmer_jax.run.writer import Writer

ROW = {'fold': 'a', 'seed': 0, 'marks': [], 'best_epoch': 1, 'epochs': 2, 'test': {'uar': 0.5}, 'floor': {'uar': 0.1}}
RESULTS = {
    'format': 1, 'config': 'c', 'variant': '', 'dataset': 'd', 'modalities': ['text'], 'protocol': 'p', 'parameters': 5,
    'metrics': 'classes', 'selection': 'uar', 'headline': ['uar'], 'class_names': ['x'], 'published': None,
    'rows': [ROW],
}  # fmt: skip


def written(folder, results):
    (folder / 'results.json').write_text(json.dumps(results))
    return folder


def test_a_whole_one_is_read(tmp_path):
    assert read_run(written(tmp_path, RESULTS)).results['rows'] == [ROW]


@pytest.mark.parametrize('key', ['config', 'dataset', 'modalities', 'parameters', 'headline', 'class_names', 'rows'])
@pytest.mark.parametrize('value', [{}, 3.5, None, [1], True])
def test_values_of_another_kind_are_named(tmp_path, key, value):
    with pytest.raises(ReportError, match=rf'results.json is damaged \({key} is .*, expected .*\): remove it and run'):
        read_run(written(tmp_path, {**RESULTS, key: value}))


@pytest.mark.parametrize('key', [key for key in ROW if key not in ('test', 'floor')])
def test_values_of_a_row_are_named_with_it(tmp_path, key):
    with pytest.raises(ReportError, match=rf'results.json is damaged \(rows\[0\].{key} is \{{\}}, expected'):
        read_run(written(tmp_path, {**RESULTS, 'rows': [{**ROW, key: {}}]}))


@pytest.mark.parametrize('content', ['[1]', '5', '"x"', 'null'])
def test_what_is_no_object_is_said(tmp_path, content):
    (tmp_path / 'results.json').write_text(content)
    with pytest.raises(ReportError, match=r'results.json is damaged \(it holds \w+, expected an object\)'):
        read_run(tmp_path)


def test_nesting_without_end_is_no_json(tmp_path):
    (tmp_path / 'x.json').write_text('[' * 100_000)
    (tmp_path / 'x.jsonl').write_text('[' * 100_000 + '\n')
    with pytest.raises(ValueError, match='x.json: not valid JSON'):
        read_json(tmp_path / 'x.json')
    with pytest.raises(ValueError, match='x.jsonl, line 1: not a JSON object'):
        read_jsonl(tmp_path / 'x.jsonl')


def test_a_step_that_is_no_number_is_named(tmp_path):
    (tmp_path / 'metrics.jsonl').write_text('{"step": 1}\n{"step": "x"}\n')
    with (
        Writer(tmp_path, tensorboard=False) as log,
        pytest.raises(ValueError, match=r"metrics.jsonl, line 2: no number 'step'"),
    ):
        log.truncate_after(5)


def test_a_sealed_object_is_read_without_its_sum_and_refused_where_it_was_changed(tmp_path):
    path, value = tmp_path / 'results.json', {'rows': [{'test': {'uar': 0.1}}], 'größe': (1, None), 'sha256': 'old'}
    write_json(path, value, sealed=True)
    assert read_json(path) == {'rows': [{'test': {'uar': 0.1}}], 'größe': [1, None]}
    path.write_bytes(path.read_bytes().replace(b'0.1', b'0.7'))
    with pytest.raises(ValueError, match=r'results\.json: its sum differs: it was changed since it was written'):
        read_json(path)
    write_json(path, {'rows': []})  # of version 0.2
    assert read_json(path) == {'rows': []}
