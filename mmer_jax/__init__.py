"""Multimodal emotion recognition in JAX and Flax. BUILD.md is the map of the package."""

import time

__version__ = '0.2.0'
BEGUN = time.perf_counter()  # when the package was first imported: from here a command's imports are measured
