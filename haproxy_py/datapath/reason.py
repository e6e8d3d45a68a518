"""The closed set of reasons as C constants; their status codes and texts stand in `haproxy_py.reasons`."""
