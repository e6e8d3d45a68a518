"""The benchmark: CPU per request of haproxy_py beside HAProxy, nginx and the raw relay, in one interleaved run."""
