"""What is made of results: runs as read, summaries, tables, pictures, pages; `to_pandas` for notebooks."""

from mmer_jax.results.export import to_pandas

__all__ = ['to_pandas']
