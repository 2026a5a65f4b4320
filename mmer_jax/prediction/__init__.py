"""A finished run on raw clips: `load_predictor(workdir)(clip)`; `python -m mmer_jax.predict` is its command."""

from mmer_jax.prediction.predictor import Failure, Prediction, Predictor, load_predictor
from mmer_jax.readers import Clip

__all__ = ['Clip', 'Failure', 'Prediction', 'Predictor', 'load_predictor']
