"""Everything around an agent: data, networks, training loop, evaluation, logs."""
