"""The control process: supervisor, discovery, reload."""
