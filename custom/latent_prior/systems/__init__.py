"""The registered systems: what is optimised with the prior, and how a run reports and exports it."""
