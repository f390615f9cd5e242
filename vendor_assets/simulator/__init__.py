"""The embedded vendor: a separate program that speaks the APIs of New Relic (both), Datadog and Amazon CloudWatch.

It shares no code with the rest of vendor_assets and nothing imports it, so no bug can hide on both sides of the wire.
Start it with ``python -m vendor_assets.simulator``.

- ``world``: what the vendor knows, computed from a seed; pure.
- ``data_groups``: the values of a data group; pure.
- ``dialect``: paths, paging, granularity and JSON of the New Relic REST v2 API; pure.
- ``nrql``: New Relic's query language, from text to a query; pure.
- ``timeslice_query``: a query over the world; pure.
- ``nerdgraph``: GraphQL documents with entity searches and NRQL queries, and their limits.
- ``datadog_query``: Datadog's metric queries, from text to a query; pure.
- ``datadog_series``: such a query over the world; pure.
- ``datadog_formula``: formulas over queries; pure.
- ``datadog``: Datadog's endpoints: hosts, tags, names of metrics, time series.
- ``cloudwatch``: Amazon CloudWatch's lists of metrics and their points, and its quotas.
- ``sigv4``: whether a request's signature is right; pure.
- ``limits``: the rate limit (token bucket, fixed window, sliding window), and by bucket of endpoints; pure.
- ``load``: capacity, queueing and collapse; pure.
- ``faults``: what can go wrong on purpose, and when; pure.
- ``record``: the vendor's own log, the judge of every trial.
- ``vendor``: all of these together, and the control endpoints.
- ``server``: HTTP over asyncio.
- ``command``: flags.
"""
