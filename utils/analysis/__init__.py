"""Programs that work on the agents of finished runs."""
