"""Sensors, schedules, alerts, and the runs that they request."""
