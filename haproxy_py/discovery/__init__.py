"""Which replicas an instance has now, and which instances there are: from the configuration, the DNS or Kubernetes.

Read in this order: `found` (what comes out), `slices` and `services` (what the API server says, as far as it matters here),
`merge` (slices to replicas), `reflector` (list and watch); `lookup`, `names` and `members` (the same for the DNS); `discovery`
(all of it together). Nothing here knows of tables or workers. The last good answer stays in force through every failure, for as
long as it lasts.
"""
