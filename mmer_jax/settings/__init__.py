"""What a value may be: ranges of flags, keys of configs, fields of modules, overrides of the command line."""
