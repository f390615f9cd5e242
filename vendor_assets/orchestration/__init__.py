"""The only package that imports Dagster: partitions, resources, IO managers, assets, jobs, sensors, schedules."""
