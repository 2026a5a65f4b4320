"""Names that a config may give, apart from what makes them, so that a command's help does not wait for jax."""

OPTIMIZERS = ('adam', 'adamw', 'sgd')
SCHEDULES = ('constant', 'cosine', 'linear')
COMPUTE_DTYPES = ('float32', 'bfloat16')
SEEDS_BY = ('auto', 'vmap', 'turns')
TRACKERS = ('none', 'wandb', 'mlflow')
