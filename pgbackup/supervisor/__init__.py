"""The resident process: workers, schedule, lease, signals."""
