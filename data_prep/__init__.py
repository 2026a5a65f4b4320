"""Preparation of data sets: a data set's own folder -> record shards. One module a data set."""
