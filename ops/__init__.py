"""How people run it: command line, daemon, demo, replay, audit, keys and deployment."""
