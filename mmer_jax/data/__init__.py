"""Data on disk and in batches: schema, records, protocols and folds, leaks, augmentation, batches. No jax here."""
