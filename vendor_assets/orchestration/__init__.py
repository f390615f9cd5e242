"""The only package that speaks Dagster: partitions, resources, IO managers, assets, jobs, sensors, schedules."""
