"""The harvest: plan, fetch, land, tabulate; one harvest is the work of one asset partition."""
