"""The ground floor: an append-only, sealed, provable store of events. It knows no domain word."""
