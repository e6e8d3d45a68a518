"""Everything that runs per request, compiled, and nothing else."""
