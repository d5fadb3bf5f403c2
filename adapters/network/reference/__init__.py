"""The reference network: it registers agencies, issues link codes, checks the law, permits, relays, records.

It stands in for the real one, whose specification is not public, and refuses what the law refuses.
"""
