"""A gpuletd of one's own, and the plain clients that talk to it.

Daemon starts build/gpuletd (the folder is $BUILD) on its own ports with its own state folder, and
stop() checks that it ends with status 0 and that no sanitizer spoke.  Wire is a bare socket for
what a proper client would never send."""
import collections
import http.client
import json
import os
import pathlib
import random
import re
import signal
import socket
import subprocess
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("BUILD", "build"))
GPULETD = (BUILD if BUILD.is_absolute() else ROOT / BUILD) / "gpuletd"
SANITIZED = "san" in BUILD.name
SLOW = 4 if SANITIZED else 1  # everything takes so many times longer
ENV = dict(
    {k: v for k, v in os.environ.items() if k not in ("JOURNAL_STREAM", "NOTIFY_SOCKET", "LISTEN_FDS")},
    ASAN_OPTIONS="exitcode=99:detect_leaks=1:allocator_may_return_null=1:handle_abort=1",
    UBSAN_OPTIONS="print_stacktrace=1:halt_on_error=1",
)
COMPLAINTS = re.compile(rb"Sanitizer|runtime error:|Assertion|Fatal error")

Reply = collections.namedtuple("Reply", "status headers body")


def error_of(reply):
    """The error's text; every reply but a 200 must have one."""
    assert reply.headers.get("Content-Type") == "application/json", (reply.status, dict(reply.headers), reply.body[:200])
    o = json.loads(reply.body)
    assert isinstance(o, dict) and list(o) == ["error"] and isinstance(o["error"], str) and o["error"], o
    if reply.status == 503:
        assert int(reply.headers["Retry-After"]) >= 1
    return o["error"]


def free_ports(n):
    """Ports below the range that outgoing connections get theirs from."""
    held, ports = [], []
    while len(ports) < n:
        s = socket.socket()
        try:
            port = random.SystemRandom().randrange(12000, 32000)
            s.bind(("127.0.0.1", port))
            held.append(s)
            ports.append(port)
        except OSError:
            s.close()
    for s in held:
        s.close()
    return ports


def sim_file(models=None, faults=(), units=4, devices=("sim0",), interference=None, **more):
    """models: {name: microseconds | {"us", "per_row_us", "answer", "profile"}}"""
    problem, echo = [], []
    for name, m in (models or {}).items():
        m = m if isinstance(m, dict) else {"us": m}
        if m.get("answer") == "echo":
            echo.append(name)
        ms = [(m.get("us", 0) + m.get("per_row_us", 0) * b) / 1000 for b in (1, 8)]
        profile = m.get("profile") or {"batch": [1, 8], "units": sorted({1, units}), "run_ms": [ms] * len({1, units})}
        problem.append({"name": name, "max_batch": 8, "profile": {"made-up": profile}})
    return {
        "version": 1,
        "types": [{"name": "made-up", "granules": units, **({"interference": interference} if interference else {})}],
        "devices": [{"type": "made-up", "names": list(devices)}],
        "models": problem,
        "sim": {"echo": echo, "faults": list(faults), **more},
    }


class Daemon:
    def __init__(self, folder, backend="sim", sim=None, config=None, state=None):
        self.folder = pathlib.Path(folder)
        self.state = pathlib.Path(state) if state else self.folder / "state"
        self.conf = self.folder / "gpuletd.conf"
        self.log = self.folder / "log"
        self.socket = self.folder / "admin.sock"
        self.port, self.admin_port = free_ports(2)
        self.backend = backend
        self.process = None
        self.options = {
            ("http", "listen"): f"127.0.0.1:{self.port}",
            ("admin", "listen"): f"127.0.0.1:{self.admin_port}",
            ("admin", "socket"): self.socket,
            ("state", "directory"): self.state,
            ("device", "backend"): backend,
        }
        if backend == "sim":
            file = self.folder / "sim.json"
            file.write_text(json.dumps(sim or sim_file()))
            self.options["device", "sim-file"] = file
        self.set(config or {})

    def set(self, options):
        """Write the configuration with some options changed: {("section", "name"): value}."""
        self.options.update(options)
        lines = []
        for section in dict.fromkeys(s for s, _ in self.options):
            lines.append(f"[{section}]")
            lines += [f"{name} = {v}" for (s, name), v in self.options.items() if s == section]
        self.conf.write_text("\n".join(lines) + "\n")

    # ---- the process

    def start(self, wait=True):
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                [GPULETD, "--config", self.conf], stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=ENV
            )
        if wait:
            until(self.is_ready, 60 * SLOW, f"the daemon to become ready\n{self.log.read_text()}", self)
        return self

    def is_ready(self):
        try:
            return self.get("/v2/health/ready").status == 200
        except OSError:
            assert self.process.poll() is None, self.log.read_text()
            return False

    def signal(self, number):
        self.process.send_signal(number)

    def wait(self, seconds=60):
        status = self.process.wait(seconds * SLOW)
        self.process = None
        return status

    def kill(self):
        self.signal(signal.SIGKILL)
        self.wait()

    def stop(self):
        """End it as systemd would, and see that it had nothing to complain of."""
        if not self.process:
            return self.check_log()
        self.signal(signal.SIGTERM)
        try:
            status = self.wait()
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            self.process = None
            raise AssertionError(f"no end after SIGTERM\n{self.log_tail()}") from None
        assert status == 0, f"it ended with status {status}\n{self.log_tail()}"
        self.check_log()

    def check_log(self):
        if self.log.exists():
            assert not COMPLAINTS.search(self.log.read_bytes()), self.log_tail(200)

    def log_tail(self, n=40):
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-n:])

    def rss_kb(self):
        status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+)", status)[1])

    def sleeps(self):
        """Whether no thread of it runs or waits for a core."""
        try:
            threads = pathlib.Path(f"/proc/{self.process.pid}/task").glob("*/stat")
            return all(t.read_text().rsplit(")", 1)[1].split()[0] == "S" for t in threads)
        except OSError:
            return False  # one has just ended

    def files(self):
        """What lies in the state folder: {path: size}; None while it changes.  Without profiles: a device
        that is idle is measured, and they are written, at any moment."""
        try:
            found = {str(p.relative_to(self.state)): p.stat().st_size for p in self.state.rglob("*") if p.is_file()}
        except FileNotFoundError:
            return None
        return {p: n for p, n in found.items() if not p.startswith("profiles/")}

    # ---- requests

    def connect(self, admin=False, timeout=60):
        return http.client.HTTPConnection("127.0.0.1", self.admin_port if admin else self.port, timeout=timeout * SLOW)

    def request(self, method, path, body=None, headers=None, admin=False, timeout=60):
        if isinstance(body, (dict, list)):
            body = json.dumps(body)
        c = self.connect(admin, timeout)
        try:
            c.request(method, path, body, headers or {})
            r = c.getresponse()
            return Reply(r.status, r.headers, r.read())
        finally:
            c.close()

    def get(self, path, **args):
        return self.request("GET", path, **args)

    def post(self, path, body=None, **args):
        return self.request("POST", path, body, **args)

    def admin(self, method, path, body=None, headers=None, **args):
        return self.request(method, path, body, headers, admin=True, **args)

    def admin_get(self, path):
        r = self.admin("GET", path)
        assert r.status == 200, r.body
        return json.loads(r.body)

    def put(self, name, data, query="", status=200, **args):
        """Register a model; gives what the daemon says of it."""
        r = self.admin("PUT", f"/v1/models/{name}{query}", data, **args)
        assert r.status == status, (r.status, r.body)
        return json.loads(r.body) if status in (200, 202) else error_of(r)

    def infer(self, name, inputs, outputs=None, status=200, **more):
        """JSON in, JSON out: {output: numpy array}, or the error's text when status is not 200."""
        o = {"inputs": [json_input(n, x) for n, x in inputs.items()], **more}
        if outputs:
            o["outputs"] = [{"name": n} for n in outputs]
        r = self.post(f"/v2/models/{name}/infer", o)
        assert r.status == status, (r.status, r.body[:500])
        return read_json_outputs(json.loads(r.body)) if status == 200 else error_of(r)

    def infer_binary(self, name, inputs, connection=None, status=200, timeout=120):
        """Binary in, binary out."""
        head, body = binary_body(inputs)
        headers = {"Inference-Header-Content-Length": str(len(head))}
        if connection is None:
            r = self.post(f"/v2/models/{name}/infer", head + body, headers=headers, timeout=timeout)
        else:
            connection.request("POST", f"/v2/models/{name}/infer", head + body, headers)
            reply = connection.getresponse()
            r = Reply(reply.status, reply.headers, reply.read())
        assert r.status == status, (r.status, r.body[:500])
        return read_outputs(r) if status == 200 else error_of(r)

    def metrics(self, admin=True):
        r = self.request("GET", "/metrics", admin=admin)
        assert r.status == 200
        return parse_metrics(r.body.decode())

    def wire(self, admin=False):
        return Wire(self.admin_port if admin else self.port)


def until(ready, seconds, what, daemon=None):
    end = time.monotonic() + seconds
    while True:
        value = ready()
        if value:
            return value
        assert time.monotonic() < end, f"waited {seconds} s for {what}\n{daemon.log_tail() if daemon else ''}"
        time.sleep(0.02)


# ---- tensors on the wire

TYPES = {
    "bool": "BOOL", "uint8": "UINT8", "uint16": "UINT16", "uint32": "UINT32", "uint64": "UINT64",
    "int8": "INT8", "int16": "INT16", "int32": "INT32", "int64": "INT64",
    "float16": "FP16", "float32": "FP32", "float64": "FP64",
}  # fmt: skip
NUMPY = {v: k for k, v in TYPES.items()}


def entry(name, x):
    return {"name": name, "shape": list(x.shape), "datatype": TYPES[x.dtype.name]}


def json_input(name, x):
    return {**entry(name, x), "data": x.flatten().tolist()}


def binary_body(inputs, **more):
    """The JSON part, which asks for binary outputs, and the bytes behind it."""
    entries = [{**entry(n, x), "parameters": {"binary_data_size": x.nbytes}} for n, x in inputs.items()]
    head = {"inputs": entries, "parameters": {"binary_data_output": True}, **more}
    return json.dumps(head).encode(), b"".join(x.tobytes() for x in inputs.values())


def read_json_outputs(o):
    import numpy as np

    return {y["name"]: np.array(y["data"], dtype=NUMPY[y["datatype"]]).reshape(y["shape"]) for y in o["outputs"]}


def read_outputs(reply):
    """Outputs of either form, in one reply."""
    import numpy as np

    size = reply.headers.get("Inference-Header-Content-Length")
    at = int(size) if size else len(reply.body)
    found = {}
    for y in json.loads(reply.body[:at])["outputs"]:
        dtype = NUMPY[y["datatype"]]
        if "data" in y:
            found[y["name"]] = np.array(y["data"], dtype=dtype).reshape(y["shape"])
            continue
        n = y["parameters"]["binary_data_size"]
        found[y["name"]] = np.frombuffer(reply.body[at : at + n], dtype=dtype).reshape(y["shape"])
        at += n
    assert at == len(reply.body), "bytes follow the last output"
    return found


def parse_metrics(text):
    """{(name, ((label, value), ...)): number}; asserts the text's grammar."""
    found, kinds = {}, {}
    sample = re.compile(r'([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{((?:[a-zA-Z_]\w*="(?:[^"\\]|\\.)*",?)*)\})? (\S+)$')
    for line in text.splitlines():
        if line.startswith("# TYPE "):
            _, _, name, kind = line.split(" ")
            assert name not in kinds, f"{name} has two types"
            kinds[name] = kind
        elif line.startswith("#"):
            assert line.startswith("# HELP "), line
        elif line:
            m = sample.match(line)
            assert m, line
            labels = tuple(sorted(re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', m[2] or "")))
            assert (m[1], labels) not in found, f"twice: {line}"
            found[m[1], labels] = float(m[3])
    return found


def metric(found, name, **labels):
    """The sum over all samples that have these labels."""
    wanted = {k: str(v) for k, v in labels.items()}.items()
    return sum(v for (n, l), v in found.items() if n == name and wanted <= dict(l).items())


# ---- a bare socket


class Wire:
    """Sends exactly what it is told, and reads replies by their own framing."""

    def __init__(self, port, timeout=30):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout * SLOW)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.left = b""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def send(self, data):
        self.socket.sendall(data if isinstance(data, bytes) else data.encode())
        return self

    def more(self):
        data = self.socket.recv(65536)
        self.left += data
        return bool(data)

    def is_closed(self):
        """Whether the other side closes now, having said nothing more."""
        try:
            return not self.more() and not self.left
        except ConnectionResetError:
            return True

    def head(self):
        while b"\r\n\r\n" not in self.left:
            if not self.more():
                assert not self.left, self.left
                return None
        head, self.left = self.left.split(b"\r\n\r\n", 1)
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = http.client.HTTPMessage()
        for line in lines:
            name, value = line.split(": ", 1)
            headers[name] = value
        version, status, _ = first.split(" ", 2)
        assert version in ("HTTP/1.1", "HTTP/1.0"), first
        return int(status), headers

    def read(self, method="GET"):
        """The next reply; None when the connection was closed instead."""
        head = self.head()
        if head is None:
            return None
        status, headers = head
        if status == 100 or method == "HEAD":
            return Reply(status, headers, b"")
        assert "Content-Length" in headers, dict(headers)
        size = int(headers["Content-Length"])
        while len(self.left) < size:
            assert self.more(), "cut off inside a body"
        body, self.left = self.left[:size], self.left[size:]
        return Reply(status, headers, body)

    def ask(self, data, method="GET"):
        return self.send(data).read(method)


def request_bytes(method, path, body=b"", **headers):
    """A well-formed request; headers by name with _ for -."""
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost"]
    if body or method in ("POST", "PUT"):
        headers.setdefault("Content_Length", len(body))
    lines += [f"{k.replace('_', '-')}: {v}" for k, v in headers.items() if v is not None]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body
