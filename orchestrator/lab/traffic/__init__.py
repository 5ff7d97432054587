"""Users of the service, as the lab has them: they resolve by themselves, never retry, and write down every request."""
