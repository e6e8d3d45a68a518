cdef class Gate:
    # Settings; nothing here changes after construction.
    cdef bytes admin_root  # b"/x/y", lower-case; empty for admin root `/`
    cdef frozenset names  # b"flows": first segments that are denied
    cdef frozenset pairs  # b"dashboard/api": first two segments that are denied
    cdef dict allow  # exact path as received -> methods; no methods means every method
    cdef tuple deny  # (methods, pattern of a tree, lower-case): no methods means every method
    cdef tuple patterns  # (methods, pattern): all of `allow`; in strict mode they declare
    cdef readonly bint strict  # only what is declared may pass
    cdef readonly bint knows_routes  # False: strict, and what the flows declare is not known yet
    cdef dict routes  # lower-case first segment -> what the flows declare below it: tuple of (methods, operations, kinds)
    cdef tuple roving  # the same, of which the first segment is not literal
    cdef tuple openers  # (methods, pattern): those of `allow` that open what is denied otherwise
    # For each first letter of a first segment the lengths of the names (of the pairs' first halves) that begin with it,
    # as a set of bits: most requests are seen not to match any name without making an object.
    cdef unsigned long long name_lengths[256]
    cdef unsigned long long pair_lengths[256]

    # -1: may pass; else the index in `counters.GATE_RULES` of the rule that denies.
    cdef int judge(self, const char *path, Py_ssize_t size, bytes method) except -2
    cdef int judge_declared(self, const char *path, Py_ssize_t size, bytes method, bint upgrades) except -2
    cdef bint is_declared(self, const unsigned char *text, Py_ssize_t size, bytes method, bint upgrades) except -1
    cdef bint resolved_are_declared(self, const unsigned char *path, Py_ssize_t size, bytes method, bint upgrades) except -1
    cdef bint denies_tree(self, bytes prefix) except -1
    cdef int judge_spelled(self, const unsigned char *path, Py_ssize_t size, bytes method) except -2
    cdef int judge_decoded(self, unsigned char *decoded, Py_ssize_t size, unsigned char *reading, bytes method) except -2
    cdef int judge_reading(self, const unsigned char *text, Py_ssize_t size, bytes method) except -2
    cdef int judge_beside_names(self, const unsigned char *text, Py_ssize_t size, bytes method) except -2
    cdef int judge_names(self, const unsigned char *text, Py_ssize_t size) except -2
    cdef bint is_resource(self, const unsigned char *text, Py_ssize_t size, bytes method) noexcept
    cdef bint is_allowed(self, const unsigned char *path, Py_ssize_t size, bytes method) except -1
    cdef bint is_on_deny_list(self, const unsigned char *text, Py_ssize_t size, bytes method) except -1
