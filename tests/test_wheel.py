"""The toolkit as an installed package: a wheel unpacked elsewhere, used in another folder than the checkout."""

import os
import shutil
import subprocess
import sys
import tomllib
import zipfile

import pytest

from data_prep import cmu_sdk, csd
from mmer_jax import doctor
from mmer_jax.settings import overrides
from tests.conftest import REPOSITORY

CODE = """
import sys
from pathlib import Path
import configs.base, mmer_jax
from mmer_jax import main
from mmer_jax.results.table_config import read_table, row_config
from mmer_jax.settings import overrides

assert str(Path(mmer_jax.__file__)).startswith(sys.argv[1]), mmer_jax.__file__
for path in ('configs/quickstart.py', 'quickstart', 'quickstart:text', 'mine', 'configs/mine.py'):
    config = main.read_config(path, [('epochs', '1')])
    print(path, config.name, ','.join(config.modalities), config.data.batch_size)
table = read_table('configs/tables/synthetic.py')
print('table', row_config(table, table.rows[0], None, ()).name, len(table.rows) == len(read_table('synthetic').rows))
"""
MINE = """
from configs.base import get_base
from configs.quickstart import get_config as quickstart
from configs.shared import SIZE


def get_config(variant=''):
    config = quickstart(variant).copy_and_resolve_references()
    config.name, config.data.batch_size = 'mine', SIZE
    assert get_base('x').epochs
    return config
"""


@pytest.fixture(scope='module')
def wheel(tmp_path_factory):
    """The unpacked wheel, built as pip builds it, from a copy of what belongs to it."""
    pytest.importorskip('setuptools', reason='the extra test brings it')
    folder = tmp_path_factory.mktemp('wheel')
    source, unpacked = folder / 'source', folder / 'unpacked'
    for name in ('mmer_jax', 'data_prep', 'configs'):
        shutil.copytree(REPOSITORY / name, source / name, ignore=shutil.ignore_patterns('__pycache__'))
    for name in ('pyproject.toml', 'README.md', 'LICENSE'):
        shutil.copy(REPOSITORY / name, source / name)
    code = f'import setuptools.build_meta as build; build.build_wheel({str(folder)!r})'
    subprocess.run([sys.executable, '-c', code], cwd=source, check=True, capture_output=True, timeout=120)
    (path,) = folder.glob('*.whl')
    with zipfile.ZipFile(path) as archive:
        archive.extractall(unpacked)
    return unpacked


def elsewhere(wheel, folder, *arguments):
    """Output of Python in another folder, where the wheel is what is installed."""
    environment = {**os.environ, 'PYTHONPATH': str(wheel)}
    done = subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_wheel_holds_all_that_commands_read(wheel):
    for package in ('configs', 'mmer_jax', 'data_prep'):
        wanted = {path.relative_to(REPOSITORY) for path in (REPOSITORY / package).rglob('*.py')}
        assert wanted <= {path.relative_to(wheel) for path in (wheel / package).rglob('*.py')}
    assert (wheel / 'mmer_jax' / 'py.typed').is_file()
    assert {path.name for path in wheel.iterdir() if '.' not in path.name} == {'configs', 'mmer_jax', 'data_prep'}
    entries = (wheel / next(wheel.glob('*.dist-info')).name / 'entry_points.txt').read_text()
    assert [line.split(' = ')[0] for line in entries.splitlines()[1:]] == [
        'mmer-doctor', 'mmer-predict', 'mmer-report', 'mmer-train',
    ]  # fmt: skip


@pytest.mark.parametrize('own_package', [True, False], ids=['with __init__', 'without'])
def test_shipped_configs_are_found_beside_ones_own(wheel, tmp_path, own_package):
    """A folder configs of the user's neither hides the shipped ones nor is hidden by them; his file of a name wins."""
    (tmp_path / 'configs').mkdir()
    (tmp_path / 'configs' / 'mine.py').write_text(MINE)
    (tmp_path / 'configs' / 'shared.py').write_text('SIZE = 20\n')
    if own_package:
        (tmp_path / 'configs' / '__init__.py').write_text('')
    code = CODE if not own_package else CODE.replace('import configs.base, ', 'import ')
    shown = elsewhere(wheel, tmp_path, '-c', code, str(wheel)).splitlines()
    assert shown == [
        'configs/quickstart.py quickstart text,audio,vision 64',
        'quickstart quickstart text,audio,vision 64',
        'quickstart:text quickstart text 64',
        'mine mine text,audio,vision 20',
        'configs/mine.py mine text,audio,vision 20',
        'table mfsa_synthetic True',
    ]


def test_a_file_of_ones_own_wins_over_the_shipped_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert overrides.find_file('quickstart') == overrides.ROOT / 'configs' / 'quickstart.py'
    (tmp_path / 'configs').mkdir()
    (tmp_path / 'configs' / 'quickstart.py').write_text('')
    for name in ('quickstart', 'configs/quickstart.py'):
        assert overrides.find_file(name).resolve() == tmp_path / 'configs' / 'quickstart.py'
    with pytest.raises(FileNotFoundError, match=r'quikstart or configs/quikstart.py: .*did you mean quickstart.py'):
        overrides.find_file('quikstart')


def test_a_missing_extra_is_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(csd, 'h5py', None)
    (tmp_path / 'x.csd').write_bytes(bytes(5000))
    words = [f'--{name}={tmp_path}/x.csd' for name in ('labels', 'words', 'glove', 'folds')]
    assert cmu_sdk.main(['--dataset=mosi', f'--output={tmp_path}/out', *words]) == 1
    error = capsys.readouterr().err
    assert error.endswith("x.csd: reading it needs h5py, the extra csd: pip install 'mmer_jax[csd]'\n")
    assert error.count('\n') == 1


# ---- doctor ----------------------------------------------------------------------------------------------------


def requirements(monkeypatch, *texts):
    monkeypatch.setattr(doctor, 'requirements', lambda: [doctor.Requirement.read(text) for text in texts])


def test_doctor_says_what_is_broken_and_ends_with_1(tmp_path, monkeypatch, capsys):
    """Too old, missing, raising when imported, and killing the process that imports it; the rest is still told."""
    (tmp_path / 'raises.py').write_text('raise RuntimeError("no such\\n library")')
    (tmp_path / 'kills.py').write_text('import os; print("I am loud"); os.abort()')
    (tmp_path / 'fine.py').write_text('print("[1, 2, 3]")')
    monkeypatch.setenv('PYTHONPATH', str(tmp_path))
    versions = {'raises': '1.0', 'kills': '1.0', 'fine': '1.9.2', 'old': '1.9'}
    monkeypatch.setattr(doctor.Requirement, 'version', lambda self: versions.get(self.package, ''))
    requirements(monkeypatch, 'raises', 'kills>=1', 'fine>=1.9,<2', 'old>=1.10', 'absent>=3', 'more>=1; extra == "tpu"')
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'fine.py'))
    monkeypatch.delenv('JAX_COMPILATION_CACHE_DIR')
    monkeypatch.setenv('MMER_PRETRAINED', str(tmp_path / 'nowhere'))
    assert doctor.main([]) == 1
    shown = capsys.readouterr().out
    assert '! RuntimeError: no such library' in shown
    assert '! ended the process with status -6' in shown
    assert 'fine                  1.9.2                 ok' in shown
    assert '! expected >=1.10' in shown
    assert '! missing, expected >=3' in shown
    assert 'tpu                   missing               for TPUs\n' in shown
    assert '1 x cpu' in shown or '2 x cpu' in shown
    assert shown.splitlines()[-5] == '4 needed parts are missing or broken:'


def test_doctor_reads_pyproject_and_the_metadata_of_a_package_alike(wheel, monkeypatch):
    ours = doctor.requirements()
    from importlib import metadata

    (folder,) = wheel.glob('*.dist-info')
    installed = metadata.Distribution.at(folder).requires
    assert sorted(map(str, map(doctor.Requirement.read, installed))) == sorted(map(str, ours))
    assert {one.extra for one in ours} - {''} <= set(doctor.PURPOSES)
    assert [one for one in ours if one.extra in ('', 'test') and one.fault()] == []


def test_every_entry_is_a_command():
    scripts = tomllib.loads((REPOSITORY / 'pyproject.toml').read_text())['project']['scripts']
    for entry in scripts.values():
        name, _, function = entry.partition(':')
        path = REPOSITORY / f'{name.replace(".", "/")}.py'
        assert path.is_file(), f'{entry}: no such module'
        assert f'def {function}(argv' in path.read_text()
