"""The agent: one process beside the workers, for what is done once for all of them: health checks, look-ups of names,
the admin interface. It has no privileges, and no request passes through it."""
