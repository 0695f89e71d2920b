"""Many runs: planned, estimated, worked through by processes and machines."""
