"""The gate: which paths belong to the admin side of Node-RED and are refused while an instance is in HA mode.

The path is the request target, in absolute form reduced to its path, up to the first `?` (GATE-1). It is only judged
here; what is forwarded is the target as it came. The message's own rules (no fragment, no `\\`, no control octets, one
target form) have been applied before, but nothing below relies on them.

Rules, in the order in which they are asked:

1. `allow` (GATE-10): a path that equals an entry octet for octet may pass, with one of its methods. It opens that one
   spelling and nothing below it. An entry may be a pattern (GATE-12): `:name` stands for one segment, `*` at the end for
   everything below, not for the path before it. It matches the path as received, letter by letter, and only one that
   means the same in every reading (`is_narrow`). It outranks what denies the literal segments before its first
   wildcard, because only these were written knowingly: `/library/*` opens the libraries, but `/:tenant/report` opens
   no `/flows/report`, and `/dashboard/*` not the dashboard's admin routes.
2. A path is read in six ways (GATE-2): as received, percent-decoded once, and decoded twice; each with `..` kept as a
   segment and with `..` resolved. In every reading `\\` counts as `/`, every segment is cut at its first `;`, empty
   and `.` segments are dropped, and letters compare without regard to ASCII case. The readings differ because
   Node-RED's own parts differ: Express matches routes on the path undecoded, the editor's file server decodes and
   resolves, and proxies in between may do either. A path with dot segments is read in these six ways once more as `new
   URL` resolves it: before anything is decoded, but for `%2e`, and an empty segment is one to go back from. One denied
   reading is enough to deny (GATE-3).
3. With admin root `/` (GATE-4) a reading is denied if it has no segment (`editor_page`), if its first segment is one of
   the names (`admin_route`), or if its first two are one of the pairs (`dashboard_admin`).
4. With another admin root (GATE-5) a reading is denied if it begins with the root's segments (`admin_root`). Names and
   pairs then mean nothing: all that they name has moved below that root.
5. With any admin root (GATE-7) a segment `_debug` is denied if `dashboard` stands before it, or `datastore` or
   `statestore` behind it (`dashboard_debug`). It hands out a widget's data, and it follows the dashboard's base path,
   which flows choose.
6. GATE-11: `GET` and `HEAD` of `<admin root>/resources/<package>/<file>` are not denied by rules 3 and 4: static files
   that a package publishes, which Node-RED serves to anybody, login or not, and from which Dashboard 2 loads the
   widgets of other packages. Only a path whose readings are all the same is opened, `resources` in the case in which
   Node-RED's own route is written, with two segments at least behind it.
7. `deny`: a reading that begins with the segments of an entry is denied for the entry's methods (`deny_list`). `:name`
   stands for any one segment; `*` at the end adds nothing, as an entry closes its path and everything below.

8. In strict mode (GATE-13) what rules 1 to 7 let pass must be declared: by the flows (`node_red.routes`) or by `allow`, whose
   patterns all count here. A route is matched with the path as received, as Express does; where a path goes back by `..`
   in any reading, what it resolves to must be declared as well. An upgrade needs a route for upgrades, because Node gives
   none of them to Express. It is `not_declared` otherwise. As long as nothing is known, nothing passes.

Methods count in rules 1, 6, 7 and 8 only (GATE-6). The verdict does not depend on whether the instance is in HA mode:
where it is not, a denial by rules 1 to 7 marks admin traffic, which then keeps to one replica.

Time and memory are linear in the length of the path, whatever it holds.
"""

import cython
from cython.cimports.cpython.bytes import PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cython.cimports.libc.stdlib import free, malloc
from cython.cimports.libc.string import memchr, memcmp, memcpy, memset

from haproxy_py.counters import GATE_RULES
from haproxy_py.table import GateRules

# Operations of a declared route, as `node_red.routes` makes them.
FOLDED = cython.declare(cython.int, 0)
EXACT = cython.declare(cython.int, 1)
IN_SEGMENT = cython.declare(cython.int, 2)
IN_SEGMENT_BUT = cython.declare(cython.int, 3)
ANY = cython.declare(cython.int, 4)
DIGIT = cython.declare(cython.int, 5)
LOOP = cython.declare(cython.int, 8)
MAYBE = cython.declare(cython.int, 16)
MAX_STATES = cython.declare(cython.int, 256)

# Verdicts as C constants, taken from the closed set that the counters are laid out by.
EDITOR_PAGE = cython.declare(cython.int, GATE_RULES.index("editor_page"))
ADMIN_ROUTE = cython.declare(cython.int, GATE_RULES.index("admin_route"))
ADMIN_ROOT = cython.declare(cython.int, GATE_RULES.index("admin_root"))
DASHBOARD_ADMIN = cython.declare(cython.int, GATE_RULES.index("dashboard_admin"))
DASHBOARD_DEBUG = cython.declare(cython.int, GATE_RULES.index("dashboard_debug"))
DENY_LIST = cython.declare(cython.int, GATE_RULES.index("deny_list"))
NOT_DECLARED = cython.declare(cython.int, GATE_RULES.index("not_declared"))
MAY_PASS = cython.declare(cython.int, -1)

UNDERSCORE = cython.declare(cython.int, 0x5F)

RESOURCES = cython.declare(bytes, b"/resources/")

# Wildcards in patterns. Both are octets that no literal segment of a pattern can hold.
ONE_SEGMENT = cython.declare(cython.uchar, 0)
ALL_BELOW = cython.declare(cython.uchar, 1)

# The segments of GATE-7. In `/dashboard/_debug/datastore` they lie 10 octets before and 7 behind the middle one.
DASHBOARD = cython.declare(bytes, b"dashboard")
DEBUG = cython.declare(bytes, b"_debug")
DATASTORE = cython.declare(bytes, b"datastore")
STATESTORE = cython.declare(bytes, b"statestore")


@cython.final
@cython.cclass
class Gate:
    """The gate of one instance. Judging changes nothing in it."""

    def __init__(self, rules: GateRules):
        self.admin_root = b"".join(b"/" + segment.lower().encode() for segment in rules.admin_root)
        self.names = frozenset(name.lower().encode() for name in rules.names)
        self.pairs = frozenset(f"{first}/{second}".lower().encode() for first, second in rules.pairs)
        self.allow = {}
        patterns: list = []
        for methods, path in rules.allow:
            if "*" in path or ":" in path:
                patterns.append((_in_bytes(methods), _pattern(path.split("/")[1:])))
                continue
            known = self.allow.get(path.encode())
            every = not methods or known == frozenset()
            self.allow[path.encode()] = frozenset() if every else _in_bytes(methods) | (known or frozenset())
        self.deny = tuple(
            # Node answers HEAD by the handler of GET, so who denies GET has denied that handler.
            (
                _in_bytes(methods | {"HEAD"} if "GET" in methods else methods),
                _pattern([segment.lower() for segment in segments]),
            )
            for methods, segments in rules.deny
        )
        at: cython.int
        for at in range(256):
            self.name_lengths[at] = 0
            self.pair_lengths[at] = 0
        for name in self.names:
            if name:
                self.name_lengths[cython.cast(cython.uchar, name[0])] |= _length_bit(len(name))
        for pair in self.pairs:
            first = pair.partition(b"/")[0]
            if first:
                self.pair_lengths[cython.cast(cython.uchar, first[0])] |= _length_bit(len(first))
        self.openers = tuple(
            (methods, pattern) for methods, pattern in patterns if self.denies_tree(_literal_prefix(pattern))
        )
        self.patterns = tuple(patterns)
        self.strict = rules.strict
        self.knows_routes = not rules.strict or rules.routes is not None
        below: dict = {}
        for route in rules.routes or ():
            first = _first_segment(route.operations)
            item = (_in_bytes(route.methods), route.operations, route.upgrades, route.requests)
            below.setdefault(first, []).append(item)
        self.roving = tuple(below.pop(None, ()))
        self.routes = {first: tuple(items) for first, items in below.items()}

    @cython.cfunc
    @cython.exceptval(-1, check=False)
    def denies_tree(self, prefix: bytes) -> cython.bint:
        """Whether everything below some literal segments is denied, for one method at least."""
        text: cython.p_const_uchar = cython.cast(cython.p_const_uchar, PyBytes_AS_STRING(prefix))
        size: cython.Py_ssize_t = PyBytes_GET_SIZE(prefix)
        pattern: bytes
        if size == 0:
            return False
        for _, pattern in self.deny:
            if is_below_pattern(text, size, pattern):
                return True
        return self.judge_reading(text, size, b"") != MAY_PASS

    def rule_for(self, path: bytes, method: bytes, size: int | None = None) -> str | None:
        """The name of the rule that denies a path, or None if it may pass: `judge` for tests and tools.

        With a size only so many octets are the path, as in the data path, where more follow. Raises ValueError if it
        has fewer.
        """
        length: cython.Py_ssize_t = PyBytes_GET_SIZE(path)
        if size is not None:
            if size < 0 or size > length:
                raise ValueError(f"size {size} of a path of {length} octets")
            length = size
        verdict: cython.int = self.judge(PyBytes_AS_STRING(path), length, method)
        return None if verdict == MAY_PASS else GATE_RULES[verdict]

    @cython.cfunc
    @cython.exceptval(-2, check=False)
    def judge(self, path: cython.p_const_char, size: cython.Py_ssize_t, method: bytes) -> cython.int:
        """MAY_PASS (-1), or the index in GATE_RULES of the rule that denies. Reads `path[:size]` only.

        Raises MemoryError: a path that cannot be judged must not be forwarded.
        """
        text: cython.p_const_uchar = cython.cast(cython.p_const_uchar, path)
        if size < 0:
            raise ValueError("a path has no negative size")
        if self.allow and self.is_allowed(text, size, method):
            return MAY_PASS
        if self.openers and matches_any(self.openers, text, size, method):
            return MAY_PASS
        if not is_plain(text, size):
            return self.judge_spelled(text, size, method)
        if text[size - 1] == b"/":  # size is 1 at least: a plain path begins with a slash
            size -= 1
        if self.is_resource(text, size, method):
            return self.judge_beside_names(text, size, method)
        return self.judge_reading(text, size, method)

    def strict_rule_for(self, path: bytes, method: bytes, upgrades: bool = False) -> str | None:
        """`rule_for`, and in strict mode what `judge_declared` adds."""
        rule = self.rule_for(path, method)
        if rule is not None or not self.strict:
            return rule
        verdict: cython.int = self.judge_declared(PyBytes_AS_STRING(path), PyBytes_GET_SIZE(path), method, upgrades)
        return None if verdict == MAY_PASS else GATE_RULES[verdict]

    @cython.cfunc
    @cython.exceptval(-2, check=False)
    def judge_declared(
        self, path: cython.p_const_char, size: cython.Py_ssize_t, method: bytes, upgrades: cython.bint
    ) -> cython.int:
        """GATE-13: NOT_DECLARED, or MAY_PASS. For what `judge` lets pass, in strict mode."""
        text: cython.p_const_uchar = cython.cast(cython.p_const_uchar, path)
        if self.allow and self.is_allowed(text, size, method):
            return MAY_PASS
        if self.patterns and matches_any(self.patterns, text, size, method):
            return MAY_PASS
        if not self.is_declared(text, size, method, upgrades):
            return NOT_DECLARED
        if is_plain(text, size) or self.resolved_are_declared(text, size, method, upgrades):
            return MAY_PASS
        return NOT_DECLARED

    @cython.cfunc
    @cython.exceptval(-1, check=False)
    def is_declared(
        self, text: cython.p_const_uchar, size: cython.Py_ssize_t, method: bytes, upgrades: cython.bint
    ) -> cython.bint:
        """Whether a route of the flows matches."""
        operations: bytes
        for_upgrades: cython.bint
        for_requests: cython.bint
        if size < 1 or text[0] != b"/":
            return False
        first: bytes = PyBytes_FromStringAndSize(
            cython.cast(cython.p_const_char, text + 1), segment_end(text, 1, size) - 1
        )
        for routes in (self.routes.get(first.lower()), self.roving):
            if not routes:
                continue
            for methods, operations, for_upgrades, for_requests in routes:
                if not (for_upgrades if upgrades else for_requests):
                    continue
                if fits(text, size, operations) and (not methods or method in methods):
                    return True
        return False

    @cython.cfunc
    @cython.exceptval(-1, check=False)
    def resolved_are_declared(
        self, path: cython.p_const_uchar, size: cython.Py_ssize_t, method: bytes, upgrades: cython.bint
    ) -> cython.bint:
        """Whether every reading that goes back by `..` ends at something that is declared."""
        memory: cython.p_uchar = cython.cast(cython.p_uchar, malloc(2 * size + 1))
        if memory is cython.NULL:
            raise MemoryError
        decoded: cython.p_uchar = memory
        reading: cython.p_uchar = memory + size
        kept: cython.Py_ssize_t
        length: cython.Py_ssize_t
        before: cython.Py_ssize_t
        _decodings: cython.int
        try:
            if size > 0:
                memcpy(decoded, path, size)
            for _decodings in range(3):
                kept = write_reading(reading, decoded, size, False)
                length = write_reading(reading, decoded, size, True)
                if length != kept and not self.is_declared(reading, length, method, upgrades):
                    return False
                before = size
                size = decode_in_place(decoded, size)
                if size == before:
                    return True
            return True
        finally:
            free(memory)

    @cython.cfunc
    @cython.exceptval(-2, check=False)
    def judge_spelled(self, path: cython.p_const_uchar, size: cython.Py_ssize_t, method: bytes) -> cython.int:
        """The verdict of all readings, for a path that is not plain."""
        # Two copies: the path as far as it is decoded, which may be one octet longer than the path, and one reading of it,
        # which may be one octet longer than that.
        memory: cython.p_uchar = cython.cast(cython.p_uchar, malloc(2 * size + 3))
        if memory is cython.NULL:
            raise MemoryError
        decoded: cython.p_uchar = memory
        reading: cython.p_uchar = memory + size + 1
        verdict: cython.int
        length: cython.Py_ssize_t
        try:
            if size > 0:
                memcpy(decoded, path, size)
            verdict = self.judge_decoded(decoded, size, reading, method)
            if verdict != MAY_PASS:
                return verdict
            length = resolve_as_url(decoded, path, size)
            if length == size and memcmp(decoded, path, size) == 0:  # no dot segments: the readings repeat these
                return MAY_PASS
            return self.judge_decoded(decoded, length, reading, method)
        finally:
            free(memory)

    @cython.cfunc
    @cython.exceptval(-2, check=False)
    def judge_decoded(
        self, decoded: cython.p_uchar, size: cython.Py_ssize_t, reading: cython.p_uchar, method: bytes
    ) -> cython.int:
        """The verdict of six readings of a path, which is decoded in place; `reading` has room for an octet more."""
        verdict: cython.int
        length: cython.Py_ssize_t
        before: cython.Py_ssize_t
        _decodings: cython.int
        resolve: cython.bint
        for _decodings in range(3):
            for resolve in range(2):
                length = write_reading(reading, decoded, size, resolve)
                verdict = self.judge_reading(reading, length, method)
                if verdict != MAY_PASS:
                    return verdict
            before = size
            size = decode_in_place(decoded, size)
            if size == before:  # nothing left to decode: further readings repeat these
                return MAY_PASS
        return MAY_PASS

    @cython.cfunc
    @cython.exceptval(-2, check=False)
    def judge_reading(self, text: cython.p_const_uchar, size: cython.Py_ssize_t, method: bytes) -> cython.int:
        """The verdict of one reading, every segment with a slash before it: `/a/b`; empty without segments."""
        verdict: cython.int
        if PyBytes_GET_SIZE(self.admin_root) > 0:
            if is_below(text, size, self.admin_root):
                return ADMIN_ROOT
        else:
            verdict = self.judge_names(text, size)
            if verdict != MAY_PASS:
                return verdict
        return self.judge_beside_names(text, size, method)

    @cython.cfunc
    @cython.exceptval(-2, check=False)
    def judge_beside_names(self, text: cython.p_const_uchar, size: cython.Py_ssize_t, method: bytes) -> cython.int:
        """The verdict of the rules that hold for every path, whatever the admin root."""
        if names_debug(text, size):
            return DASHBOARD_DEBUG
        if self.deny and self.is_on_deny_list(text, size, method):
            return DENY_LIST
        return MAY_PASS

    @cython.cfunc
    @cython.exceptval(-2, check=False)
    def judge_names(self, text: cython.p_const_uchar, size: cython.Py_ssize_t) -> cython.int:
        """GATE-4: the verdict of one reading under admin root `/`."""
        if size == 0:
            return EDITOR_PAGE
        end: cython.Py_ssize_t = segment_end(
            text, 1, size
        )  # a reading that is not empty begins with a slash and an octet
        letter: cython.uchar = fold(text[1])
        bit: cython.ulonglong = _length_bit(end - 1)
        segments: bytes
        if self.name_lengths[letter] & bit:
            segments = PyBytes_FromStringAndSize(cython.cast(cython.p_const_char, text + 1), end - 1)
            if segments.lower() in self.names:
                return ADMIN_ROUTE
        if end < size and self.pair_lengths[letter] & bit:
            end = segment_end(text, end + 1, size)
            segments = PyBytes_FromStringAndSize(cython.cast(cython.p_const_char, text + 1), end - 1)
            if segments.lower() in self.pairs:
                return DASHBOARD_ADMIN
        return MAY_PASS

    @cython.cfunc
    @cython.exceptval(check=False)
    def is_resource(self, text: cython.p_const_uchar, size: cython.Py_ssize_t, method: bytes) -> cython.bint:
        """GATE-11: whether a plain path, less a slash at its end, names a package's static file."""
        root: cython.Py_ssize_t = PyBytes_GET_SIZE(self.admin_root)
        at: cython.Py_ssize_t = root + PyBytes_GET_SIZE(RESOURCES)
        if size <= at or text[root + 1] != b"r" or not starts_with(text + root, RESOURCES):
            return False
        if not is_below(text, size, self.admin_root):
            return False
        # The path is plain: between two of its slashes there is a segment, and the last octet is no slash.
        if memchr(text + at, 0x2F, size - at) is cython.NULL:
            return False
        return method == b"GET" or method == b"HEAD"

    @cython.cfunc
    @cython.exceptval(-1, check=False)
    def is_allowed(self, path: cython.p_const_uchar, size: cython.Py_ssize_t, method: bytes) -> cython.bint:
        methods = self.allow.get(PyBytes_FromStringAndSize(cython.cast(cython.p_const_char, path), size))
        return methods is not None and (not methods or method in methods)

    @cython.cfunc
    @cython.exceptval(-1, check=False)
    def is_on_deny_list(self, text: cython.p_const_uchar, size: cython.Py_ssize_t, method: bytes) -> cython.bint:
        pattern: bytes
        for methods, pattern in self.deny:
            if is_below_pattern(text, size, pattern) and (not methods or method in methods):
                return True
        return False


def _in_bytes(methods: frozenset[str]) -> frozenset[bytes]:
    return frozenset(method.encode() for method in methods)


def _pattern(segments: list[str]) -> bytes:
    """A pattern as it is compared: a slash before each segment, wildcards as one octet."""
    wildcards = {":": chr(ONE_SEGMENT), "*": chr(ALL_BELOW)}
    return "".join("/" + wildcards.get(segment[:1], segment) for segment in segments).encode()


def _first_segment(operations: bytes) -> bytes | None:
    """The first segment of what fits, in lower case; None if there are several."""
    first = bytearray()
    for at in range(2, len(operations), 2):
        kind, octet = operations[at], operations[at + 1]
        if octet == ord("/") and kind in (FOLDED, EXACT, FOLDED | MAYBE):
            return bytes(first).lower()
        if kind not in (FOLDED, EXACT):
            return None
        first.append(octet)
    return bytes(first).lower()


def _literal_prefix(pattern: bytes) -> bytes:
    """The segments before the first wildcard, in lower case."""
    ends = [end for end in (pattern.find(ONE_SEGMENT), pattern.find(ALL_BELOW)) if end >= 0]
    return pattern[: min(ends) - 1].lower() if ends else pattern.lower()


@cython.cfunc
@cython.exceptval(-1, check=False)
def matches_any(entries: tuple, path: cython.p_const_uchar, size: cython.Py_ssize_t, method: bytes) -> cython.bint:
    """GATE-12: whether a pattern of `allow` matches a path as received."""
    pattern: bytes
    if not is_narrow(path, size):
        return False
    for methods, pattern in entries:
        if (not methods or method in methods) and equals_pattern(path, size, pattern):
            return True
    return False


@cython.cfunc
@cython.exceptval(check=False)
def _length_bit(length: cython.Py_ssize_t) -> cython.ulonglong:
    """The bit of a segment's length; the last one stands for all that are longer."""
    return cython.cast(cython.ulonglong, 1) << (length if 0 <= length < 63 else 63)


@cython.cfunc
@cython.inline
@cython.exceptval(check=False)
def fold(octet: cython.uchar) -> cython.uchar:
    """ASCII lower case."""
    return octet + 32 if 0x41 <= octet <= 0x5A else octet


# Every function below walks a pointer. Each proves its range where it reads: the position is compared with the end in
# the same expression or in the condition just before it.


@cython.cfunc
@cython.exceptval(check=False)
def is_plain(text: cython.p_const_uchar, size: cython.Py_ssize_t) -> cython.bint:
    """Whether all readings are the path itself, less one slash at its end.

    So it is when the path begins with a slash, no segment but the last is empty, none begins with a dot, and nothing is
    encoded, cut or turned round. (A segment that only begins with a dot costs time, not correctness.)
    """
    if size < 1 or text[0] != b"/":
        return False
    at: cython.Py_ssize_t
    octet: cython.uchar
    after_slash: cython.bint = False
    for at in range(size):
        octet = text[at]
        if octet == b"/":
            if after_slash:
                return False
            after_slash = True
            continue
        if octet in b"%;\\" or (after_slash and octet == b"."):
            return False
        after_slash = False
    return True


@cython.cfunc
@cython.exceptval(check=False)
def is_narrow(text: cython.p_const_uchar, size: cython.Py_ssize_t) -> cython.bint:
    """Whether all six readings have the segments of the path, some of their octets decoded.

    Nothing is cut or turned round, no segment is empty (one slash at the end aside) or made of dots, and what is
    encoded is neither part of such a segment, nor a separator, nor something that is decoded twice.
    """
    if size < 1 or text[0] != b"/":
        return False
    at: cython.Py_ssize_t = 0
    start: cython.Py_ssize_t = 0  # of the slash before the segment
    octet: cython.uchar
    value: cython.int
    while at < size:
        octet = text[at]
        if octet == b"/":
            if at > 0 and is_empty_or_dots(text + start + 1, at - start - 1):
                return False
            start = at
        elif octet in b";\\" or octet < 0x21 or octet > 0x7E:
            return False
        elif octet == b"%":
            if size - at < 3 or hex_digit(text[at + 1]) < 0 or hex_digit(text[at + 2]) < 0:
                return False
            value = hex_digit(text[at + 1]) * 16 + hex_digit(text[at + 2])
            if value < 0x20 or value == 0x7F or value in b"%./;\\":
                return False
        at += 1
    return start + 1 == size or not is_empty_or_dots(text + start + 1, size - start - 1)


@cython.cfunc
@cython.inline
@cython.exceptval(check=False)
def is_empty_or_dots(segment: cython.p_const_uchar, size: cython.Py_ssize_t) -> cython.bint:
    return size == 0 or (size <= 2 and segment[0] == b"." and segment[size - 1] == b".")


@cython.cfunc
@cython.exceptval(check=False)
def equals_pattern(text: cython.p_const_uchar, size: cython.Py_ssize_t, pattern: bytes) -> cython.bint:
    """Whether a path is the pattern, letter by letter; ALL_BELOW needs at least one octet."""
    signs: cython.p_const_uchar = cython.cast(cython.p_const_uchar, PyBytes_AS_STRING(pattern))
    length: cython.Py_ssize_t = PyBytes_GET_SIZE(pattern)
    at: cython.Py_ssize_t = 0
    position: cython.Py_ssize_t
    for position in range(length):
        if at >= size:
            return False
        if signs[position] == ALL_BELOW:
            return True
        if signs[position] == ONE_SEGMENT:
            if text[at] == b"/":
                return False
            at = segment_end(text, at, size)
        elif text[at] == signs[position]:
            at += 1
        else:
            return False
    return at == size


@cython.cfunc
@cython.exceptval(check=False)
def fits(text: cython.p_const_uchar, size: cython.Py_ssize_t, operations: bytes) -> cython.bint:
    """Whether a path fits operations. Every state is asked once per octet, so time is linear in the path.

    `states[i]` says that the operations before the one of this number have fitted what was read.
    """
    signs: cython.p_const_uchar = cython.cast(cython.p_const_uchar, PyBytes_AS_STRING(operations))
    count: cython.int = cython.cast(cython.int, PyBytes_GET_SIZE(operations) // 2)
    now: cython.uchar[256]
    after: cython.uchar[256]
    low: cython.int = 0  # no state is set below, or above `high`
    high: cython.int = 0
    next_low: cython.int
    next_high: cython.int
    state: cython.int
    target: cython.int
    at: cython.Py_ssize_t
    if count >= MAX_STATES:
        return False
    memset(cython.address(now[0]), 0, 256)
    memset(cython.address(after[0]), 0, 256)
    now[0] = 1
    for at in range(size):
        next_low = MAX_STATES
        next_high = -1
        state = low
        while state <= high:  # `high` grows where an operation may be left out
            if now[state]:
                now[state] = 0
                if state < count:
                    if signs[2 * state] & (LOOP | MAYBE):
                        now[state + 1] = 1
                        if state + 1 > high:
                            high = state + 1
                    if fits_one(text[at], signs[2 * state] & 7, signs[2 * state + 1]):
                        target = state if signs[2 * state] & LOOP else state + 1
                        after[target] = 1
                        if target < next_low:
                            next_low = target
                        if target > next_high:
                            next_high = target
            state += 1
        if next_high < 0:
            return False
        for state in range(next_low, next_high + 1):
            now[state] = after[state]
            after[state] = 0
        low = next_low
        high = next_high
    state = low
    while state < count and state <= high:
        if now[state] and signs[2 * state] & (LOOP | MAYBE):
            now[state + 1] = 1
            if state + 1 > high:
                high = state + 1
        state += 1
    return now[count] != 0


@cython.cfunc
@cython.inline
@cython.exceptval(check=False)
def fits_one(octet: cython.uchar, kind: cython.int, other: cython.uchar) -> cython.bint:
    if kind == FOLDED:
        return fold(octet) == other
    if kind == EXACT:
        return octet == other
    if kind == IN_SEGMENT:
        return octet != b"/"
    if kind == IN_SEGMENT_BUT:
        return octet != b"/" and fold(octet) != other
    if kind == DIGIT:
        return 0x30 <= octet <= 0x39
    return kind == ANY


@cython.cfunc
@cython.exceptval(check=False)
def is_below_pattern(text: cython.p_const_uchar, size: cython.Py_ssize_t, pattern: bytes) -> cython.bint:
    """Whether a reading begins with the segments of a pattern in lower case; ALL_BELOW adds nothing."""
    signs: cython.p_const_uchar = cython.cast(cython.p_const_uchar, PyBytes_AS_STRING(pattern))
    length: cython.Py_ssize_t = PyBytes_GET_SIZE(pattern)
    at: cython.Py_ssize_t = 0
    position: cython.Py_ssize_t
    if length >= 2 and signs[length - 1] == ALL_BELOW:
        length -= 2
    for position in range(length):
        if at >= size:
            return False
        if signs[position] == ONE_SEGMENT:
            at = segment_end(text, at, size)  # not empty: no reading has empty segments
        elif fold(text[at]) == signs[position]:
            at += 1
        else:
            return False
    return at == size or text[at] == b"/"


@cython.cfunc
@cython.exceptval(check=False)
def write_reading(
    reading: cython.p_uchar, path: cython.p_const_uchar, size: cython.Py_ssize_t, resolve: cython.bint
) -> cython.Py_ssize_t:
    """Writes the segments of a path, each preceded by one slash, and returns the size.

    At most `size + 1` octets: a segment takes the place of itself and of the separator before it, which only the first
    may lack. A segment that is taken back by `..` is walked over once more and then gone, so the time is linear too.
    """
    written: cython.Py_ssize_t = 0
    start: cython.Py_ssize_t = 0
    end: cython.Py_ssize_t  # of the segment, where it is cut
    next_separator: cython.Py_ssize_t
    while start < size:
        end = start
        while end < size and path[end] != b"/" and path[end] != b"\\" and path[end] != b";":
            end += 1
        next_separator = end
        while next_separator < size and path[next_separator] != b"/" and path[next_separator] != b"\\":
            next_separator += 1
        if resolve and end - start == 2 and path[start] == b"." and path[start + 1] == b".":
            # Back to the slash before the last segment; above the root there is nothing to take back.
            while written > 0:
                written -= 1
                if reading[written] == b"/":
                    break
        elif end > start and not (end - start == 1 and path[start] == b"."):
            reading[written] = b"/"
            memcpy(reading + written + 1, path + start, end - start)
            written += 1 + end - start
        start = next_separator + 1
    return written


def path_of_url(path: bytes) -> bytes:
    """The path that `new URL` makes of this one, but for what it writes percent-encoded: `resolve_as_url` for tests."""
    resolved: bytes = PyBytes_FromStringAndSize(cython.NULL, PyBytes_GET_SIZE(path) + 1)
    written: cython.p_uchar = cython.cast(cython.p_uchar, PyBytes_AS_STRING(resolved))
    text: cython.p_const_uchar = cython.cast(cython.p_const_uchar, PyBytes_AS_STRING(path))
    return resolved[: resolve_as_url(written, text, PyBytes_GET_SIZE(path))]


@cython.cfunc
@cython.exceptval(check=False)
def resolve_as_url(written: cython.p_uchar, path: cython.p_const_uchar, size: cython.Py_ssize_t) -> cython.Py_ssize_t:
    """Writes a path as the URL Standard's "path state" resolves it, and returns the size: at most `size + 1` octets.

    A segment takes the place of itself and of the separator before it, which only the first may lack; the slash behind a last
    dot segment takes the place of that.
    """
    length: cython.Py_ssize_t = 0
    start: cython.Py_ssize_t = 1 if size > 0 and (path[0] == b"/" or path[0] == b"\\") else 0
    end: cython.Py_ssize_t
    dots: cython.int
    while True:
        end = start
        while end < size and path[end] != b"/" and path[end] != b"\\":
            end += 1
        dots = count_dots(path + start, end - start)
        if dots == 2:
            while length > 0:
                length -= 1
                if written[length] == b"/":
                    break
        elif dots == 0:
            written[length] = b"/"
            memcpy(written + length + 1, path + start, end - start)
            length += 1 + end - start
        if end >= size:
            break
        start = end + 1
    if dots > 0:
        written[length] = b"/"
        length += 1
    return length


@cython.cfunc
@cython.exceptval(check=False)
def count_dots(segment: cython.p_const_uchar, size: cython.Py_ssize_t) -> cython.int:
    """1 for `.`, 2 for `..`, each dot as it is or as `%2e`; 0 for every other segment."""
    dots: cython.int = 0
    at: cython.Py_ssize_t = 0
    while at < size:
        if segment[at] == b".":
            at += 1
        elif size - at > 2 and segment[at] == b"%" and segment[at + 1] == b"2" and fold(segment[at + 2]) == b"e":
            at += 3
        else:
            return 0
        dots += 1
        if dots > 2:
            return 0
    return dots


@cython.cfunc
@cython.exceptval(check=False)
def decode_in_place(text: cython.p_uchar, size: cython.Py_ssize_t) -> cython.Py_ssize_t:
    """Decodes every `%` with two hexadecimal digits behind it, once, and returns the size: smaller if there was any."""
    written: cython.Py_ssize_t = 0  # never ahead of `at`
    at: cython.Py_ssize_t = 0
    high: cython.int
    low: cython.int
    while at < size:
        if text[at] == b"%" and size - at > 2:
            high = hex_digit(text[at + 1])
            low = hex_digit(text[at + 2])
            if high >= 0 and low >= 0:
                text[written] = cython.cast(cython.uchar, high * 16 + low)
                written += 1
                at += 3
                continue
        text[written] = text[at]
        written += 1
        at += 1
    return written


@cython.cfunc
@cython.inline
@cython.exceptval(check=False)
def hex_digit(octet: cython.uchar) -> cython.int:
    """The digit's value, or -1."""
    if 0x30 <= octet <= 0x39:
        return octet - 0x30
    octet = fold(octet)
    return octet - 0x61 + 10 if 0x61 <= octet <= 0x66 else -1


@cython.cfunc
@cython.exceptval(check=False)
def segment_end(text: cython.p_const_uchar, start: cython.Py_ssize_t, size: cython.Py_ssize_t) -> cython.Py_ssize_t:
    """Where the segment that begins at `start` ends: at the next slash, or at the end of the reading."""
    while start < size and text[start] != b"/":
        start += 1
    return start


@cython.cfunc
@cython.exceptval(check=False)
def is_below(text: cython.p_const_uchar, size: cython.Py_ssize_t, tree: bytes) -> cython.bint:
    """Whether a reading begins with the segments of a tree, given in lower case as `/x/y`; the empty tree holds all."""
    length: cython.Py_ssize_t = PyBytes_GET_SIZE(tree)
    if size < length or (size > length and text[length] != b"/"):
        return False
    return equals_folded(text, cython.cast(cython.p_const_uchar, PyBytes_AS_STRING(tree)), length)


@cython.cfunc
@cython.exceptval(check=False)
def equals_folded(text: cython.p_const_uchar, lower: cython.p_const_uchar, length: cython.Py_ssize_t) -> cython.bint:
    """Whether `length` octets are equal but for ASCII case. Both have that many; the second is lower-case already."""
    at: cython.Py_ssize_t
    for at in range(length):
        if fold(text[at]) != lower[at]:
            return False
    return True


@cython.cfunc
@cython.exceptval(check=False)
def starts_with(text: cython.p_const_uchar, prefix: bytes) -> cython.bint:
    """Whether a text, which has that many octets, begins with these."""
    return (
        memcmp(
            cython.cast(cython.p_const_void, text),
            cython.cast(cython.p_const_void, PyBytes_AS_STRING(prefix)),
            PyBytes_GET_SIZE(prefix),
        )
        == 0
    )


@cython.cfunc
@cython.exceptval(check=False)
def names_debug(text: cython.p_const_uchar, size: cython.Py_ssize_t) -> cython.bint:
    """GATE-7: whether a reading has a segment `_debug` behind `dashboard`, or before `datastore` or `statestore`."""
    at: cython.Py_ssize_t = 0
    found: cython.p_const_uchar
    while at < size:
        found = cython.cast(cython.p_const_uchar, memchr(text + at, UNDERSCORE, size - at))
        if found is cython.NULL:
            return False
        at = found - text
        if at >= 1 and text[at - 1] == b"/" and is_segment(text, at, size, DEBUG):
            if is_segment(text, at + 7, size, DATASTORE) or is_segment(text, at + 7, size, STATESTORE):
                return True
            if at >= 11 and text[at - 11] == b"/" and is_segment(text, at - 10, size, DASHBOARD):
                return True
        at += 1
    return False


@cython.cfunc
@cython.exceptval(check=False)
def is_segment(
    text: cython.p_const_uchar, start: cython.Py_ssize_t, size: cython.Py_ssize_t, name: bytes
) -> cython.bint:
    """Whether the segment that begins at `start`, which may lie past the end, is a name in lower case."""
    length: cython.Py_ssize_t = PyBytes_GET_SIZE(name)
    if start > size - length or (start < size - length and text[start + length] != b"/"):
        return False
    return equals_folded(text + start, cython.cast(cython.p_const_uchar, PyBytes_AS_STRING(name)), length)
