#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""nbd_corpus.py - write the seeds of fuzz_nbd_handshake and fuzz_nbd_requests below tests/fuzz/corpus."""
import os
import struct

HERE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "corpus")


def save(fuzzer, name, data):
    directory = os.path.join(HERE, fuzzer)
    os.makedirs(directory, exist_ok=True)
    with open(os.path.join(directory, name), "wb") as out:
        out.write(data)


def option(number, data=b""):
    return b"IHAVEOPT" + struct.pack(">II", number, len(data)) + data


def string(text):
    return struct.pack(">I", len(text)) + text


def info(name, *infos):
    return string(name) + struct.pack(">H", len(infos)) + b"".join(struct.pack(">H", i) for i in infos)


def contexts(name, *queries):
    return string(name) + struct.pack(">I", len(queries)) + b"".join(map(string, queries))


def request(command, offset=0, length=0, flags=0, payload=b"", cookie=1):
    return struct.pack(">IHHQQI", 0x25609513, flags, command, cookie, offset, length) + payload


FLAGS = b"\0\0\0\3"
handshakes = {
    "export_name": FLAGS + option(1, b"d1") + request(2),
    "go": FLAGS + option(7, info(b"d1", 1, 2, 3)) + request(0, 0, 512),
    "list_info_abort": FLAGS + option(3) + option(6, info(b"", 3)) + option(2),
    "contexts": FLAGS + option(8) + option(9, contexts(b"d1")) + option(9, contexts(b"d1", b"base:"))
    + option(10, contexts(b"d1", b"base:allocation", b"x:y")) + option(7, info(b"d1")) + request(7, 0, 4096),
    "tls_unknown": FLAGS + option(5) + option(11) + option(4711, b"abc"),
    "too_big": FLAGS + option(7, b"\0" * 5000) + option(3),
}
for name, data in handshakes.items():
    save("fuzz_nbd_handshake", name, b"\0" + data)
    save("fuzz_nbd_handshake", name + "_cut", b"\5" + data[:400])

requests = {
    "reads": request(0, 0, 4096) + request(0, 512, 65536, 4) + request(2),
    "writes": request(1, 4096, 1024, 1, b"w" * 1024) + request(3) + request(0, 4096, 1024),
    "zeroes": request(6, 0, 65536, 2) + request(6, 0, 1 << 20) + request(4, 4096, 4096) + request(6, 0, 512, 16),
    "status": request(7, 0, 1 << 20) + request(7, 0, 4096, 8),
    "refused": request(1, 1 << 20, 512, 0, b"x" * 512) + request(1, 1, 100, 0, b"y" * 100) + request(0, 0, 0)
    + request(5, 0, 512) + request(99) + request(0, 0, 512),
    "deep": b"".join(request(3, cookie=i) for i in range(20)),
    "bad_magic": request(3) + b"\0" * 28,
}
for name, data in requests.items():
    save("fuzz_nbd_requests", name, b"\0\0" + data)
    save("fuzz_nbd_requests", name + "_structured", b"\1\3" + data)
save("fuzz_nbd_requests", "device_fails", b"\3\0" + requests["reads"] + requests["writes"] + requests["status"])
