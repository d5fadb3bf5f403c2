"""Witnesses of logs over the line (C2SP tlog-witness): the door of one, and how a log asks them."""
