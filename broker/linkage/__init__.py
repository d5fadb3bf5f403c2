"""連携インターフェース: checks of partner and role, seal and signature, messages out and in, linkage log."""
