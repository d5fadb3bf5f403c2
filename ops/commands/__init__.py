"""The commands of `renkei`, a file for each room of them.

Each room has `add`, which makes the parsers of its commands, and below it what they run. A command imports
its work when it runs: `renkei audit` starts without TLS, `renkei serve` without the demo.
"""
