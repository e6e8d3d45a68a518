"""Which replicas an instance has now, and which instances there are: from the configuration, or by following Kubernetes.

Read in this order: `found` (what comes out), `slices` and `services` (what the API server says, as far as it matters here),
`merge` (slices to replicas), `reflector` (list and watch), `discovery` (all of it together). Nothing here knows of tables or
workers. The last good answer stays in force through every failure, for as long as it lasts.
"""
