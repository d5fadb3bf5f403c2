"""PF通信: what passes between the linkage interface and the intermediate interface of one agency."""
