"""What happens without a click: sensors, schedules, alerts, and the runs that they request."""
