"""Facts that the table of imports lets stand in two places: they are held together here."""

from configs import datasets
from configs.base import get_base
from configs.mfsa_mosi import ABLATIONS
from mmer_jax.data import protocols, schema
from mmer_jax.fusion.hierarchical_cross_modal import GRAINS
from mmer_jax.models import MODELS
from mmer_jax.models.mfsa import REPRESENTATIONS
from mmer_jax.results.table_config import OTHER_SPLITS
from mmer_jax.run import choices, optimizer, program


def test_configs_know_the_modalities():
    assert datasets.MODALITIES == schema.MODALITIES


def test_an_encoder_of_each_modality_can_be_put_before_a_model():
    assert set(schema.MODALITIES) <= set(MODELS['encoded'].__dataclass_fields__)


def test_tables_have_columns_of_the_other_splits():
    assert tuple(f'{split}/' for split in protocols.SPLITS if split != 'test') == OTHER_SPLITS


def test_names_that_configs_give_have_what_makes_them():
    assert tuple(optimizer.OPTIMIZERS) == choices.OPTIMIZERS
    assert tuple(optimizer.SCHEDULES) == choices.SCHEDULES
    assert tuple(program.DTYPES) == choices.COMPUTE_DTYPES


def test_the_base_configs_optimiser_and_schedule_are_there():
    fields = get_base('x').optimizer
    assert fields.name in optimizer.OPTIMIZERS
    assert fields.schedule in optimizer.SCHEDULES


def test_ablations_of_representations_and_grains_are_the_models_own():
    left = {name.removeprefix('without_'): fields for name, (_, fields) in ABLATIONS.items()}
    for name in REPRESENTATIONS:
        assert set(left[name]['fused']) == set(REPRESENTATIONS) - {name}
    for name in GRAINS:
        assert set(left[name]['grains']) == set(GRAINS) - {name}
