"""Public functions: intake, plan, kernel, result; nothing else."""
