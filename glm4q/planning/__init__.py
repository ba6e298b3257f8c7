"""From a checkpoint and a machine to the plan of a run."""
