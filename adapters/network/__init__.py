"""情報提供ネットワークシステム接続: the national network's mailbox, and a reference network to connect to."""
