"""Models on raw clips: `load_predictor(workdir)(clip)` of a finished run, `published_predictor(name)(clip)` of a
checkpoint that others trained. `python -m mmer_jax.predict` is their command.
"""

from mmer_jax.prediction.predictor import Failure, Prediction, Predictor, load_predictor
from mmer_jax.prediction.published import published_predictor
from mmer_jax.readers import Clip

__all__ = ['Clip', 'Failure', 'Prediction', 'Predictor', 'load_predictor', 'published_predictor']
