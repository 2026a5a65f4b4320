"""Weights of other libraries -> folders that mmer_jax/pretrained.py loads; torch is not needed for any of it."""
