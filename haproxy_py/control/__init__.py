"""The control process: it owns the configuration, the sockets and the workers, builds the tables, and carries no traffic."""
