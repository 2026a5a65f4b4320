"""The tables of the papers, one file each, for `python -m mmer_jax.table`; `get_table()` returns a dictionary."""
