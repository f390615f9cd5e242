"""Runs: what one is about, how one is launched from the command, what it reports, why it failed."""
