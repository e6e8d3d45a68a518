# cython: language_level=3
"""Calls the compiled functions of the data path in a loop. Built and run by `micro.py`."""

import asyncio
import time

from haproxy_py import config, counters, session_table
from haproxy_py.node_red.admin_surface import build_gate_rules
from haproxy_py.table import ReplicaEntry

from benchmarks.scenarios import find_scenario, write_request as request_text

from haproxy_py.datapath.context cimport Context, Entrance
from haproxy_py.datapath.count cimport Counters
from haproxy_py.datapath.deadlines cimport Clock
from haproxy_py.datapath.forward cimport write_request, write_response
from haproxy_py.datapath.framing cimport CHUNKED, Body, frame_request, frame_response
from haproxy_py.datapath.gate cimport Gate
from haproxy_py.datapath.heads cimport Head
from haproxy_py.datapath.passage cimport Passage, read_passage
from haproxy_py.datapath.pool cimport Replica
from haproxy_py.datapath.queue cimport Queue
from haproxy_py.datapath.sessions cimport Sessions

cdef enum:
    CALLS = 20000  # in one run
    RUNS = 15  # of which the best counts: what else the machine does only ever adds

ANSWER = (
    b"HTTP/1.1 200 OK\r\nX-Powered-By: Express\r\nAccess-Control-Allow-Origin: *\r\n"
    b"Content-Type: application/json; charset=utf-8\r\nContent-Length: 57\r\n"
    b'ETag: W/"39-m8cHu9gZyqcT3F0i8aFzqv2Y2gU"\r\nVary: Accept-Encoding\r\nCache-Control: no-cache\r\n'
    b"Date: Sun, 22 Nov 2026 12:00:00 GMT\r\nConnection: keep-alive\r\nKeep-Alive: timeout=5\r\n\r\n"
)
CHUNKS = (b"400\r\n" + b"a" * 1024 + b"\r\n") * 16 + b"0\r\n\r\n"


cdef class Bench:
    """What the functions need around them, as a worker has it."""

    cdef Context context
    cdef Entrance entrance
    cdef Replica replica
    cdef Gate gate
    cdef Body body
    cdef Passage passage
    cdef object loop

    def __init__(self):
        self.loop = asyncio.new_event_loop()
        cells = Counters(bytearray(counters.SEGMENT_BYTES))
        sessions = Sessions(bytearray(session_table.TABLE_BYTES))
        self.context = Context(self.loop, Clock(), cells, sessions, "bench", None, None)
        self.entrance = Entrance("http", "127.0.0.1", 8080, 1000, 900, None, None)
        entry = ReplicaEntry("127.0.0.1:1880", "0123", "0123456789abcdef", "127.0.0.1", 1880, 0)
        self.replica = Replica(entry, Queue(self.loop), cells)
        self.gate = Gate(build_gate_rules(config.Gate()))
        self.body = Body()

    def close(self):
        self.loop.close()

    def parse_request(self, bytes data):
        cdef Py_ssize_t end = 0
        cdef int call
        for call in range(CALLS):
            end = self.context.request.parse_request(data, len(data), 8192, 15360, 100)
        assert end > 0

    def parse_response(self, bytes data):
        cdef Py_ssize_t end = 0
        cdef int call
        for call in range(CALLS):
            end = self.context.response.parse_response(data, len(data), 65536, 200)
        assert end > 0

    def read_passage(self, bytes data):
        cdef int verdict = 0, call
        self.context.request.parse_request(data, len(data), 8192, 15360, 100)
        for call in range(CALLS):
            verdict = frame_request(self.context.request, self.body)
            verdict |= read_passage(self.context.request, self.body, self.context, b"", &self.passage)
        assert verdict == 0

    def write_request(self, bytes data):
        cdef int call
        self.context.request.parse_request(data, len(data), 8192, 15360, 100)
        frame_request(self.context.request, self.body)
        read_passage(self.context.request, self.body, self.context, b"", &self.passage)
        for call in range(CALLS):
            write_request(self.context, self.context.request, &self.passage, data, self.entrance, b"127.0.0.1", b"0" * 32, 32, None)
        assert self.context.writer.used > 0

    def write_response(self, bytes data):
        cdef int call
        self.context.response.parse_response(data, len(data), 65536, 200)
        frame_response(self.context.response, self.body, False)
        for call in range(CALLS):
            write_response(self.context, self.context.response, self.replica, False, False, False, None)
        assert self.context.writer.used > 0

    def judge(self, bytes path, bint denied):
        cdef int verdict = 0, call
        for call in range(CALLS):
            verdict = self.gate.judge(path, len(path), b"GET")
        assert (verdict >= 0) == denied

    def walk_chunks(self, bytes data):
        cdef const char* octets = data
        cdef int call
        for call in range(CALLS):
            self.body.begin(CHUNKED, 0)
            self.body.take(octets, 0, len(data))
        assert self.body.complete


def best(function, *arguments):
    """Nanoseconds per call, the best of all runs."""
    shortest = None
    for _ in range(RUNS):
        start = time.perf_counter_ns()
        function(*arguments)
        took = time.perf_counter_ns() - start
        if shortest is None or took < shortest:
            shortest = took
    return shortest / CALLS


def measure():
    """Every function, by what it does."""
    small, realistic = (request_text(find_scenario(name), 8080).encode() for name in ("small", "realistic"))
    bench = Bench()
    try:
        return {
            "parse a request's head, 1 field": best(bench.parse_request, small),
            "parse a request's head, 14 fields": best(bench.parse_request, realistic),
            "framing, target, host of a request": best(bench.read_passage, realistic),
            "gate, a path that may pass": best(bench.judge, b"/api/hello", False),
            "gate, an admin path": best(bench.judge, b"/flows", True),
            "gate, an admin path with percent-encoding": best(bench.judge, b"/a/..;x/%2566lows", True),
            "write a request's head, 14 fields": best(bench.write_request, realistic),
            "parse an answer's head, 10 fields": best(bench.parse_response, ANSWER),
            "write an answer's head, 10 fields": best(bench.write_response, ANSWER),
            "walk 16 chunks of 1 KiB": best(bench.walk_chunks, CHUNKS),
        }
    finally:
        bench.close()
