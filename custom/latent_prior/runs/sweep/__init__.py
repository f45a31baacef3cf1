"""Many runs: what to run (jobs), one run as a job of submitit (work), where jobs run (engine), and their loop."""
