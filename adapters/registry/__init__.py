"""住基CS: the resident registry server, asked for link codes; with a reference server of it."""
