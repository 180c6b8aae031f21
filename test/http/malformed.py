"""Requests that were valid once: mutations of JSON, headers, binary parts and bytes, by a seed."""
import copy
import gzip
import json
import zlib

import numpy as np

from daemon import entry, json_input

A = np.arange(8, dtype=np.float32).reshape(2, 4)
B = np.arange(6, dtype=np.int64).reshape(2, 3)
ODD = [
    None, True, False, 0, 1, -1, 1.5, 2**31, 2**32, 2**63, 2**64, -(2**63) - 1, 10**40, 1e308, "", "x", "\u0000", "é" * 50, "a" * 5000,
    [], {}, [[]], [{}], [None], [0] * 100, [[1, 2], 3], {"a": 1}, "FP32", "INT64", "BYTES", "y", "z", "binary_data_size",
]  # fmt: skip
LENGTHS = ["0", "1", "5", "-1", "+3", "0x10", "", " ", "abc", "1e3", "99999", "18446744073709551616", "9" * 60, "1,2", "\x00"]
METHODS = ["GET", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "POST ", "post", "P\x00ST", "X" * 300, "TRACE"]
CODINGS = ["gzip", "deflate", "br", "gzip, deflate", "identity", "x" * 200, ""]


class Malformed:
    def __init__(self, seed):
        self.rng = np.random.default_rng(seed)

    def pick(self, list_):
        return list_[self.rng.integers(len(list_))]

    def odd(self):
        return copy.deepcopy(self.pick(ODD))

    def request(self):
        """(what was done, bytes to send, whether the framing may be broken)"""
        kind = self.pick([self.json, self.json, self.text, self.header, self.binary, self.packed, self.path, self.bytes_])
        return (kind.__name__, *kind())

    # ---- the valid ones

    def valid(self):
        o = {"inputs": [json_input("a", A), json_input("b", B)], "outputs": [{"name": "y"}, {"name": "z"}]}
        o["parameters"] = {"binary_data_output": bool(self.rng.integers(2)), "priority": 1}
        o["id"] = "7"
        return o

    def valid_binary(self):
        o = self.valid()
        o["inputs"] = [{**entry(n, x), "parameters": {"binary_data_size": x.nbytes}} for n, x in (("a", A), ("b", B))]
        return o, A.tobytes() + B.tobytes()

    def build(self, body, method="POST", path="/v2/models/two/infer", length=None, **headers):
        lines = [f"{method} {path} HTTP/1.1", "Host: localhost", f"Content-Length: {len(body) if length is None else length}"]
        lines += [f"{k.replace('_', '-')}: {v}" for k, v in headers.items()]
        return "\r\n".join(lines).encode("latin-1", "replace") + b"\r\n\r\n" + body

    # ---- mutations

    def mutate(self, o):
        """Change one random place of a JSON value."""
        if isinstance(o, dict) and o:
            key = self.pick(list(o))
            what = self.rng.integers(5)
            if what == 0:
                del o[key]
            elif what == 1:
                o[key] = self.odd()
            elif what == 2:
                o[self.pick(["data", "name", "shape", "datatype", "parameters", "extra", ""])] = self.odd()
            else:
                o[key] = self.mutate(o[key])
            return o
        if isinstance(o, list) and o:
            at = int(self.rng.integers(len(o)))
            what = self.rng.integers(5)
            if what == 0:
                del o[at]
            elif what == 1:
                o.insert(at, o[at])
            elif what == 2:
                o[at] = self.odd()
            else:
                o[at] = self.mutate(o[at])
            return o
        return self.odd()

    def json(self):
        o = self.valid()
        for _ in range(self.rng.integers(1, 4)):
            o = self.mutate(o)
        return self.build(json.dumps(o, ensure_ascii=bool(self.rng.integers(2))).encode("utf-8", "replace")), False

    def scramble(self, data):
        data = bytearray(data)
        for _ in range(self.rng.integers(1, 6)):
            at = int(self.rng.integers(len(data) + 1))
            what = self.rng.integers(4)
            if what == 0 and at < len(data):
                data[at] = self.rng.integers(256)
            elif what == 1:
                del data[at : at + int(self.rng.integers(1, 20))]
            elif what == 2:
                data[at:at] = self.pick([b'"', b"[", b"]" * 5, b"{", b"}", b"[" * 200, b"\\", b"\\u12", b"\x00", b"\xff", b"1e999", b",", b"-", b"nan"])
            else:
                data = data[:at] or data
        return bytes(data)

    def text(self):
        return self.build(self.scramble(json.dumps(self.valid()).encode())), False

    def header(self):
        o, data = self.valid_binary()
        head = json.dumps(o).encode()
        headers = {"Inference_Header_Content_Length": len(head)}
        what = self.rng.integers(4)
        if what == 0:
            headers["Inference_Header_Content_Length"] = self.pick(LENGTHS)
        elif what == 1:
            headers["Content_Encoding"] = self.pick(CODINGS)
        elif what == 2:
            return self.build(head + data, length=self.pick(LENGTHS), **headers), True
        else:
            return self.build(head + data, method=self.pick(METHODS), **headers), True
        return self.build(head + data, **headers), "\x00" in str(headers)

    def binary(self):
        o, data = self.valid_binary()
        what = self.rng.integers(4)
        if what == 0:
            o["inputs"][int(self.rng.integers(2))]["parameters"]["binary_data_size"] = self.pick([0, 1, 31, 33, 48, 2**31, 2**63 - 1, -5, "32", None])
        elif what == 1:
            data = data[: self.rng.integers(len(data))]
        elif what == 2:
            data += bytes(int(self.rng.integers(1, 100)))
        else:
            o = self.mutate(o)
        head = json.dumps(o).encode()
        n = len(head) + int(self.pick([0, 0, 0, 1, -1, 10, -10]))
        return self.build(head + data, Inference_Header_Content_Length=n), False

    def packed(self):
        coding = self.pick(["gzip", "deflate"])
        body = (gzip.compress if coding == "gzip" else zlib.compress)(json.dumps(self.mutate(self.valid())).encode())
        if self.rng.integers(2):
            body = self.scramble(body)
        return self.build(body, Content_Encoding=coding), False

    def path(self):
        path = "".join(self.pick(["/", "v2", "models", "two", "infer", "versions", "1", "%", "%00", "%2f", "..", "?", "&", "=", "é", "x" * 500])
                       for _ in range(self.rng.integers(1, 12)))  # fmt: skip
        return self.build(json.dumps(self.valid()).encode(), path="/" + path), True

    def bytes_(self):
        return self.scramble(self.build(json.dumps(self.valid()).encode())), True
