"""Multimodal emotion recognition in JAX and Flax. BUILD.md is the map of the package."""

__version__ = '0.2.0'
