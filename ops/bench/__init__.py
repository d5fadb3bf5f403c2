"""`renkei bench`: what the ledger costs, measured in one run against bare writing of the same bytes."""
