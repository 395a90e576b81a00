"""The control plane: traffic, rollout, comparison, outcomes."""
