"""Which solver `solver="auto"` runs, and why."""
