"""団体内統合宛名: the one place that knows individual numbers; its own ledger, its own keys.

The intermediate interface asks it through a port and never sees an individual number (R-113).
"""
