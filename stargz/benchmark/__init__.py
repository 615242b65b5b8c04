"""stargz and what else does the same, on the same input, one after the other: `stargz bench`.

`run` measures and gives a report as JSON has it; `report` and `page` show one. What is in `peers`,
`deltas`, `mounts`, `trees` and `children` is what the benchmarks of developers use too.
"""
