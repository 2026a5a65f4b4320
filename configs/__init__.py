"""Experiments: one file each. `get_config(variant)` returns the locked config of base.py with its values set."""
