"""Many runs: one text file of commands, run here or by Slurm, and where each of them stands."""
