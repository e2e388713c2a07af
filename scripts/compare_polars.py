#!/usr/bin/env python3
"""What a straightforward program takes for what `criteo prepare` does: a click log to a parquet file with
the logarithms of the counts and ids by first appearance. Needs polars (2.1 for the figures in docs).

    scripts/compare_polars.py strings|categorical train.txt out.parquet
"""
import os
import resource
import sys
import time

import polars as pl

kind, source, out = sys.argv[1:4]
counts = [f"i{k}" for k in range(13)]
values = [f"c{k}" for k in range(26)]
of_values = {"strings": pl.String, "categorical": pl.Categorical}[kind]
schema = {"label": pl.Int32} | {name: pl.Int32 for name in counts} | {name: of_values for name in values}

began = time.time()
frame = pl.read_csv(source, separator="\t", has_header=False, new_columns=list(schema), schema=schema)
frame = frame.with_columns(
    [pl.col("label").cast(pl.UInt8)]
    + [(pl.col(name).fill_null(0).clip(lower_bound=0) + 1).cast(pl.Float32).log() for name in counts]
)
if kind == "categorical":
    frame = frame.with_columns([pl.col(name).to_physical() for name in values])
else:
    for name in values:
        ids = frame.select(pl.col(name).unique(maintain_order=True)).with_row_index("id")
        frame = frame.join(ids, on=name, how="left", nulls_equal=True, maintain_order="left")
        frame = frame.drop(name).rename({"id": name})
frame.write_parquet(out)
seconds = time.time() - began

megabytes = os.path.getsize(source) / 1e6
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(f"{frame.height} rows, {seconds:.2f} s, {megabytes / seconds:.1f} MB/s, peak {peak:.0f} MiB")
