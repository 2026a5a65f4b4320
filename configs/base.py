"""Every key of a config, with its default. A config sets values of these keys and can add none."""

from ml_collections import ConfigDict


def get_base(name: str, variant: str = '', variants: tuple[str, ...] = ('smoke',)) -> ConfigDict:
    """The defaults, locked; `variant` must be '' or one of `variants`."""
    if variant and variant not in variants:
        raise ValueError(f'configs/{name}.py has no variant {variant!r}; it has {", ".join(variants)}')
    config = ConfigDict()
    config.name = name
    config.variant = variant
    config.debug = False  # True: errors with their traceback

    # Data. One to three of text, audio, vision; (): all that the data have.
    config.modalities = ()
    config.data = ConfigDict()
    config.data.directory = ''  # shard directory
    config.data.batch_size = 32  # over all devices and processes
    config.data.eval_batch_size = 0  # 0: batch_size
    config.data.max_shapes = 6  # padded shapes, each compiled once
    config.data.max_length = _open({})  # steps by modality; longer records are cut on the right
    config.data.normalize = ()  # modalities brought to mean 0, deviation 1 by training statistics; ('auto',): vectors
    config.data.normalize_by = 'all'  # speaker: by the clips of each record's speaker that data.enrolment allows
    config.data.enrolment = ConfigDict()  # What is known of a speaker, marked in each row (mmer_jax/data/enrolment.py).
    config.data.enrolment.mode = 'strict'  # of the speaker none; enrolled: `clips`; transductive: all, unlabelled
    config.data.enrolment.clips = 2  # of each speaker, then in no set
    config.data.enrolment.label = ''  # the class that they are of, such as neutral; '': any, no label is read
    config.data.enrolment.seed = 0  # which clips
    config.data.augment = ()  # (('time_mask', {'modality': 'audio', 'steps': 20}), ...), training only
    config.data.workers = 0  # reading processes; 0: threads
    config.data.threads = 1  # more pay where reading decodes media (benchmarks/input_pipeline.py)

    # Which records train, validate and test: a name of mmer_jax/data/protocols.py and its options.
    config.protocol = ConfigDict()
    config.protocol.name = 'official_split'
    config.protocol.options = _open({})

    # Model: its name and fields; what the data decide (modalities, outputs, dtype) is filled in.
    config.model = _open({'name': ''})
    config.pretrained = _open({})  # module path: name or folder of converted weights (mmer_jax/pretrained.py)
    config.start_from = _open({})  # module path: 'WORKDIR:module path' of a finished run, fold by fold
    config.fresh = ()  # patterns of parameters below these paths that may stay at their initialisation
    config.compute_dtype = 'float32'  # or bfloat16: parameters stay float32

    # Training. Seeds seed .. seed + seeds - 1 train side by side in one program, on the same batches.
    config.seed = 0
    config.seeds = 1
    config.seeds_by = 'auto'  # vmap: one program; turns: one compiled step, seed after seed; auto: turns on CPU
    config.data_seed = 0  # order of the batches and augmentation
    config.epochs = 10
    config.losses = _open({})  # name: weight; task: the loss of the kind of label that the data have
    config.label_smoothing = 0.0  # share of a class's target that all classes have alike, in training
    config.mixup = 0.0  # rows are trained mixed in pairs, by shares of Beta(mixup, mixup); 0: off (run/mixup.py)
    config.accumulate = 1  # parts into which a batch is split to save memory
    config.optimizer = ConfigDict()
    config.optimizer.name = 'adam'  # adam, adamw, sgd
    config.optimizer.learning_rate = 1e-3
    config.optimizer.schedule = 'constant'  # constant, cosine, linear
    config.optimizer.warmup = 0.0  # share of all steps
    config.optimizer.weight_decay = 0.0
    config.optimizer.b1 = 0.9
    config.optimizer.b2 = 0.999
    config.optimizer.momentum = 0.9  # of sgd
    config.optimizer.freeze = ()  # patterns of parameters that keep their values
    config.optimizer.no_decay = ()  # patterns without weight decay, ('bias$', 'norm/')
    config.optimizer.layer_decay = 1.0  # factor of the learning rate per layer below the top
    config.optimizer.clip_norm = 0.0  # 0: off
    config.optimizer.clip_alone = ()  # patterns of parameters that clip_norm clips by a norm of their own
    config.optimizer.clip_value = 0.0  # 0: off
    config.optimizer.average = 0.0  # decay of the moving average of the parameters that is evaluated; 0: off

    # Model selection, on validation only.
    config.selection = ConfigDict()
    config.selection.metric = 'loss'  # auto: by the kind of label
    config.selection.folds = 0  # inner folds over all that are not tested choose the epoch, then all train; 0: off
    config.selection.patience = 0  # epochs without improvement until a seed stops; 0: never
    config.selection.plateau_patience = 0  # epochs without improvement until the rate falls; 0: never
    config.selection.plateau_factor = 0.1

    # What `python -m mmer_jax.search` varies: (('optimizer.learning_rate', 'log', 1e-5, 1e-2), ...).
    config.search = ()  # by key: log or uniform, low, high; choice, value, value, ... (mmer_jax/settings/space.py)

    # Devices: mesh.seed x mesh.data devices; -1: all that are left.
    config.mesh = ConfigDict()
    config.mesh.seed = 1
    config.mesh.data = -1

    # What is written.
    config.log_every = 10  # steps between two training rows
    config.checkpoint_every = 0  # steps; 0: at the end of every epoch
    config.tensorboard = True
    config.tracker = 'none'  # wandb or mlflow: curves and results are sent there too
    config.headline = ('accuracy', 'uar', 'macro_f1')  # metrics of the results table; ('auto',): by the kind of label
    config.evaluate_train = False  # True: the chosen epoch is measured on the training split too, not augmented
    config.published = _open({})  # metric: value, source, and dataset, beside which alone they are shown ('mosi')
    return config.lock()


def _open(values: dict) -> ConfigDict:
    """A dictionary to which a config may add keys of its own; it is set as a whole."""
    return ConfigDict(values)
