"""Whole collections: trees, lists, WebDataset shards and Parquet, encoded or decoded on all cores or a cluster.

::

    source ─ discover ─► plan, one unit per file ─► engine: processes, or Ray ─► journal ─► manifest
                         (picture, shard, table)     │ one codec per worker
                                                     └► outputs, each placed whole

A unit is finished when the journal says so; a run that was stopped in whatever way goes on with the others.
"""
