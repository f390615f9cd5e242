"""The assets: what each is, what it holds, and what a materialization says of it."""
