"""Who computes the units of a run: this process, local processes, or Ray's workers."""
