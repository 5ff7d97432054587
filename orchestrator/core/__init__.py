"""Pure rules: no clock, no randomness, no I/O. Everything that varies comes in as an argument."""
