"""Many runs: planned, started, watched."""
