"""How things get in and out: sockets, HTTP, files and web pages, one room per neighbour."""
