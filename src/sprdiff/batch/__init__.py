"""Whole collections, encoded or decoded: trees, lists, WebDataset shards and Parquet files.

::

    source ─ look_at ─► items, one for each file ─► engine: processes, or Ray ─► records ─► manifest
                        (picture, shard, table)     │ one codec in each worker
                                                    └► outputs, each placed whole

`run.batch` is where a reader starts. An item is done when its output is there as the record of the run
describes it and its source has not changed; a run that was stopped in any way goes on with the others.
"""
