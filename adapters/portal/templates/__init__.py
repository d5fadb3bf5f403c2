"""The templates of the residents' pages (data only)."""
