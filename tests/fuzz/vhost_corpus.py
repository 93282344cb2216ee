#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""vhost_corpus.py - write the seeds of fuzz_vhost and fuzz_virtqueue below tests/fuzz/corpus."""
import os
import struct

HERE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "corpus")
HVA = 0x7F5500000000
HEADS = 0x80000
DATA = 1 << 20
HALF = 8 << 20
EVENT, GUEST, SMALL = 1, 2, 3


def save(fuzzer, name, data):
    directory = os.path.join(HERE, fuzzer)
    os.makedirs(directory, exist_ok=True)
    with open(os.path.join(directory, name), "wb") as out:
        out.write(data)


# ---- messages ----

def message(request, payload=b"", fds=(), flags=1):
    kinds = sum(kind << (2 * i) for i, kind in enumerate(fds))
    return struct.pack("BBBB", kinds, request, flags, len(payload)) + payload


def u64(value):
    return struct.pack("<Q", value)


def ring(request, index, value):
    return message(request, struct.pack("<II", index, value))


def region(gpa, length):
    return struct.pack("<QQQQ", gpa, length, HVA + gpa, gpa)


HELLO = message(1) + message(15) + message(16, u64(0xB22B)) + message(3)
FEATURES = message(2, u64(1 << 32 | 1 << 30 | 1 << 29 | 1 << 28 | 1 << 9))
MEMORY = message(37, u64(0) + region(0, HALF), [GUEST]) + message(37, u64(0) + region(HALF, HALF), [GUEST])
INFLIGHT = struct.pack("<QQHHI", 4 * 1088, 0, 4, 64, 0)
ADDRESS = struct.pack("<IIQQQQ", 0, 0, HVA, HVA + 0x8000, HVA + 0x4000, 0)
START = (ring(8, 0, 64) + ring(10, 0, 0) + message(9, ADDRESS) + message(13, u64(0), [EVENT]) +
         message(14, u64(0), [EVENT]) + message(12, u64(0), [EVENT]) + ring(18, 0, 1))
STOP = ring(11, 0, 0)

save("fuzz_vhost", "usual", HELLO + FEATURES + MEMORY + message(31, INFLIGHT) +
     message(32, INFLIGHT, [SMALL]) + START + STOP)
save("fuzz_vhost", "acknowledged", (HELLO + FEATURES + MEMORY + START).replace(b"\x01\x08", b"\x09\x08") + STOP)
save("fuzz_vhost", "table", message(1) + message(2, u64(1 << 32)) +
     message(5, struct.pack("<II", 2, 0) + region(0, HALF) + region(HALF, HALF), [GUEST, GUEST]) + START)
save("fuzz_vhost", "remove_memory_under_a_ring", HELLO + FEATURES + MEMORY + START +
     message(38, u64(0) + region(0, HALF)) + STOP)
save("fuzz_vhost", "log", HELLO + FEATURES + MEMORY + START + message(6, struct.pack("<QQ", 4096, 0), [SMALL]) +
     message(7, b"", [EVENT]) + message(2, u64(1 << 32 | 1 << 30 | 1 << 26)) + STOP)
save("fuzz_vhost", "config", HELLO + message(24, struct.pack("<III", 0, 60, 0) + bytes(60)) + message(17) +
     message(36) + message(25, struct.pack("<III", 0, 1, 0) + bytes(1)))
save("fuzz_vhost", "reset", HELLO + FEATURES + MEMORY + START + STOP + message(34) + message(4) + FEATURES + START)
save("fuzz_vhost", "lies", HELLO + message(5, struct.pack("<II", 9, 0), [GUEST], flags=0x81))
save("fuzz_vhost", "stop_without_start", HELLO + STOP + STOP)


# ---- rings ----

def desc(addr, length, flags=0, follows=0):
    return struct.pack("<QIHH", addr, length, flags, follows)


NEXT, WRITE, INDIRECT = 1, 2, 4


def request(kind, sector, data=b""):
    return struct.pack("<IIQ", kind, 0, sector) + data


def queue(name, descs, rest=b"", heads=(0,), options=0):
    table = b"".join(descs)
    save("fuzz_virtqueue", name, bytes([options, len(heads)]) + bytes(heads).ljust(64, b"\0") +
         table.ljust(128, b"\0") + rest)


READ = [desc(DATA, 16, NEXT, 1), desc(DATA + 4096, 4096, NEXT | WRITE, 2), desc(DATA + 64, 1, WRITE)]
OUT = [desc(DATA, 16, NEXT, 1), desc(DATA + 4096, 4096, NEXT, 2), desc(DATA + 64, 1, WRITE)]
for option in (0, 1, 4, 8, 24):
    queue(f"read_{option}", READ, request(0, 8), options=option)
    queue(f"write_{option}", OUT, request(1, 8), options=option)
queue("write_beyond", OUT, request(1, 1 << 60))
queue("flush", [desc(DATA, 16, NEXT, 1), desc(DATA + 64, 1, WRITE)], request(4, 0))
queue("id", [desc(DATA, 16, NEXT, 1), desc(DATA + 4096, 20, NEXT | WRITE, 2), desc(DATA + 64, 1, WRITE)],
      request(8, 0))
for kind, name in ((11, "discard"), (13, "zeroes")):
    queue(name, [desc(DATA, 32, NEXT, 1), desc(DATA + 64, 1, WRITE)],
          request(kind, 0, struct.pack("<QII", 8, 8, 0)))
queue("unknown", [desc(DATA, 16, NEXT, 1), desc(DATA + 64, 1, WRITE)], request(99, 0))
queue("loop", [desc(DATA, 16, NEXT, 1), desc(DATA, 16, NEXT, 0)])
queue("same_head_twice", READ, request(0, 8), heads=(0, 0))
queue("across_regions", [desc(DATA, 16, NEXT, 1), desc(HALF - 512, 1024, NEXT | WRITE, 2),
                         desc(DATA + 64, 1, WRITE)], request(0, 8))
queue("indirect", [desc(DATA + 256, 48, INDIRECT)], request(0, 8).ljust(256, b"\0") + b"".join(READ))
queue("indirect_behind", [desc(DATA, 16, NEXT, 1), desc(DATA + 256, 32, INDIRECT)],
      request(0, 8).ljust(256, b"\0") + desc(DATA + 4096, 512, NEXT | WRITE, 1) + desc(DATA + 64, 1, WRITE))
queue("odd_pieces", [desc(DATA, 5, NEXT, 1), desc(DATA + 5, 11, NEXT, 2), desc(DATA + 4096, 513, WRITE)],
      request(0, 8))
