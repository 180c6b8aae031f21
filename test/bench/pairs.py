#!/usr/bin/env python3
"""make bench-http: gpuletd against the least that a libmicrohttpd server can do.

Interleaved pairs (A-B-B-A...), the same request and reply bytes, closed loop on loopback.  Prints
a table: the ratio of requests/s (median and quartiles of the pairs), CPU microseconds per request
of the server, latency p50 and p99 and what gpuletd adds.  Never fails for a figure.

    test/bench/pairs.py BUILD_FOLDER [--pairs 11] [--seconds 2] [--backend sim|cpu] [--only 32,upload]

With sim (the default) no gpu-let is pinned to a core, and a run takes no time: the figure is the
path's own.  --only takes some rows: numbers of connections, upload, and refused: from the last byte
of a request to the first of its reply, where it is answered with 200 at once and where it is refused
because the model's queue is full, a short request and an upload.
"""
import argparse, json, os, shutil, signal, socket, struct, subprocess, sys, tempfile, threading, time
import urllib.request

ap = argparse.ArgumentParser()
ap.add_argument("build")
ap.add_argument("--pairs", type=int, default=11)
ap.add_argument("--seconds", type=float, default=2)
ap.add_argument("--backend", choices=("sim", "cpu"), default="sim")
ap.add_argument("--only", default="1,32,128,256,1000,upload,refused")
args = ap.parse_args()


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def varint(n):
    out = b""
    while n > 127:
        out, n = out + bytes([n & 127 | 128]), n >> 7
    return out + bytes([n])


def field(num, payload):
    """One protobuf field: bytes, str or int."""
    if isinstance(payload, int):
        return varint(num << 3) + varint(payload)
    payload = payload.encode() if isinstance(payload, str) else payload
    return varint(num << 3 | 2) + varint(len(payload)) + payload


def model(op, dims_in, dims_out, attrs=b""):
    """An ONNX model y = op(x) of FP32 [batch, ...], written by hand: no package needed."""
    def value(name, dims):
        shape = field(1, field(2, "batch")) + b"".join(field(1, field(1, d)) for d in dims)
        return field(1, name) + field(2, field(1, field(1, 1) + field(2, shape)))
    node = field(1, "x") + field(2, "y") + field(4, op) + attrs
    graph = field(1, node) + field(2, "g") + field(11, value("x", dims_in)) + field(12, value("y", dims_out))
    return field(1, 8) + field(7, graph) + field(8, field(1, "") + field(2, 17))


def ints(name, values):
    return field(5, field(1, name) + b"".join(field(8, v) for v in values) + field(20, 7))


def http_request(path, body, headers=()):
    head = [f"POST {path} HTTP/1.1", "Host: localhost", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(head).encode() + b"\r\n\r\n" + body


def exchange(port, request):
    """The reply to one request: head and body."""
    with socket.create_connection(("127.0.0.1", port)) as s:
        s.sendall(request)
        data = b""
        while b"\r\n\r\n" not in data:
            data += s.recv(65536)
        head, body = data.split(b"\r\n\r\n", 1)
        fields = {k.strip().lower(): v.strip() for k, v in
                  (line.split(":", 1) for line in head.decode().split("\r\n")[1:])}
        while len(body) < int(fields["content-length"]):
            body += s.recv(65536)
        return head.decode(), fields, body


class Gpuletd:
    def __init__(self, folder, models=()):
        self.port, self.admin = free_port(), free_port()
        # A device that takes no time: what is left is the path.
        sim = {"version": 1, "types": [{"name": "none", "granules": 1}],
               "devices": [{"type": "none", "count": 1}], "models": list(models),
               "sim": {"launch_ms": 0, "flops_per_s": 1e18, "bytes_per_s": 1e18,
                       "echo": ["one", "large"]}}
        open(f"{folder}/sim.json", "w").write(json.dumps(sim))
        open(f"{folder}/g.conf", "w").write(
            f"[http]\nlisten = 127.0.0.1:{self.port}\n[admin]\nlisten = 127.0.0.1:{self.admin}\n"
            f"socket =\n[state]\ndirectory = {folder}/state\n[limits]\nqueue = 4096\n"
            f"[device]\nbackend = {args.backend}\n" +
            (f"sim-file = {folder}/sim.json\n" if args.backend == "sim" else ""))
        self.p = subprocess.Popen([f"{args.build}/gpuletd", "--config", f"{folder}/g.conf"],
                                  stderr=open(f"{folder}/log", "w"))
        for _ in range(200):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{self.port}/v2/health/ready").read()
                return
            except OSError:
                time.sleep(0.05)
        sys.exit("gpuletd does not start:\n" + open(f"{folder}/log").read())

    def put(self, name, model, query=""):
        r = urllib.request.Request(f"http://127.0.0.1:{self.admin}/v1/models/{name}{query}",
                                   data=model, method="PUT")
        urllib.request.urlopen(r).read()


def start_bare(folder, reply, fields):
    port = free_port()
    open(f"{folder}/reply", "wb").write(reply)
    p = subprocess.Popen([f"{args.build}/test/bench/bench_bare", str(port), f"{folder}/reply",
                          fields["content-type"], fields.get("inference-header-content-length", "")])
    for _ in range(100):
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return p, port
        except OSError:
            time.sleep(0.02)
    sys.exit("bench_bare does not start")


def load(port, pid, n, file):
    out = subprocess.run([f"{args.build}/test/bench/bench_load", str(port), str(n), str(args.seconds),
                          file, str(pid)], capture_output=True, text=True)
    if out.returncode:
        sys.exit(out.stderr)
    r = json.loads(out.stdout)
    if r["bad"]:
        sys.exit(f"{r['bad']} replies were not 200")
    return r


def median(xs):
    xs = sorted(xs)
    n = len(xs)
    return (xs[n // 2] + xs[(n - 1) // 2]) / 2


def quartiles(xs):
    xs = sorted(xs)
    return xs[len(xs) // 4], xs[-1 - len(xs) // 4]


def compare(what, ours, bare, n, file):
    pairs = []
    for i in range(args.pairs):
        sides = [("ours", ours), ("bare", bare)]
        got = {}
        for name, (port, pid) in sides if i % 2 == 0 else sides[::-1]:
            got[name] = load(port, pid, n, file)
        pairs.append(got)
    def mid(side, key):
        return median([p[side][key] for p in pairs])
    ratios = [p["ours"]["rps"] / p["bare"]["rps"] for p in pairs]
    low, high = quartiles(ratios)
    print(f"{what:<22} {n:>5} {mid('ours', 'rps'):>9.0f} {mid('bare', 'rps'):>9.0f} "
          f"{median(ratios):>6.3f} [{low:.3f} {high:.3f}] {mid('ours', 'cpu_us'):>7.1f} {mid('bare', 'cpu_us'):>7.1f} "
          f"{mid('ours', 'p50_us') - mid('bare', 'p50_us'):>8.0f} {mid('ours', 'p99_us') - mid('bare', 'p99_us'):>8.0f}",
          flush=True)


# ---- a refusal

BUSY_S = 2  # a run of a busy model


def first_byte_us(s, request):
    """From the last byte of the request to the first of the reply; the status, too."""
    s.sendall(request[:-1])
    time.sleep(0.001)
    t0 = time.perf_counter()
    s.sendall(request[-1:])
    data = s.recv(65536)
    us = (time.perf_counter() - t0) * 1e6
    head, body = data.split(b"\r\n\r\n", 1)
    left = int(next(x.split(b":")[1] for x in head.split(b"\r\n") if x.lower().startswith(b"content-length"))) - len(body)
    while left > 0:
        left -= len(s.recv(65536))
    return us, int(head.split()[1])


def connected(port):
    s = socket.create_connection(("127.0.0.1", port))
    s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # the last byte goes at once
    return s


def keep_full(port, request, stop):
    """One request waits and one runs, or soon does."""
    while not stop.is_set():
        with connected(port) as s:
            if first_byte_us(s, request)[1] != 200:
                time.sleep(0.0005)


def refusals(folder, null, requests):
    """requests: {what: (to the null model, to the busy one)}"""
    profile = {"none": {"batch": [1], "units": [1], "run_ms": [[1000 * BUSY_S]]}}
    os.mkdir(f"{folder}/busy")
    busy = Gpuletd(f"{folder}/busy", [{"name": n, "max_batch": 1, "profile": profile} for n in requests])
    stop = threading.Event()
    try:
        print(f"{'us to the first byte':<22} {'accepted p50':>13} {'p99':>7} {'refused p50':>13} {'p99':>7}")
        for name, (what, model, accepted, refused) in requests.items():
            busy.put(name, model, "?max_batch=1&queue=1")
            stop.clear()
            fill = [threading.Thread(target=keep_full, args=(busy.port, refused, stop)) for _ in range(3)]
            for t in fill:
                t.start()
            time.sleep(0.5)
            sides = [(null.port, accepted, 200, []), (busy.port, refused, 503, [])]
            socks = [connected(port) for port, *_ in sides]
            for i in range(1000):
                for s, (_, request, wanted, got) in zip(socks, sides):
                    us, status = first_byte_us(s, request)
                    if status == wanted:
                        got.append(us)
            stop.set()
            for t in fill:
                t.join()
            row = [sorted(got) for *_, got in sides]
            print(f"{what:<22} {row[0][len(row[0]) // 2]:>13.0f} {row[0][len(row[0]) * 99 // 100]:>7.0f} "
                  f"{row[1][len(row[1]) // 2]:>13.0f} {row[1][len(row[1]) * 99 // 100]:>7.0f}", flush=True)
            urllib.request.urlopen(urllib.request.Request(
                f"http://127.0.0.1:{busy.admin}/v1/models/{name}", method="DELETE")).read()
    finally:
        stop.set()
        busy.p.kill()
        busy.p.wait()


def main():
    folder = tempfile.mkdtemp(prefix="gpuletd-bench-")
    running = []
    try:
        d = Gpuletd(folder)
        running.append(d.p)
        identity = model("Identity", [1], [1])
        d.put("one", identity, "?max_batch=1")
        # The sim backend's "echo" answers with the first bytes of the input: a small reply.
        mean = model("ReduceMean", [3, 224, 224], [1, 1, 1], ints("axes", [1, 2, 3]))
        d.put("large", mean, "?max_batch=1")
        print(f"{'':<22} {'conns':>5} {'gpuletd/s':>9} {'bare/s':>9} {'ratio':>6} {'[quartiles]':>13} "
              f"{'CPU us':>7} {'bare':>7} {'p50 +us':>8} {'p99 +us':>8}")
        body = json.dumps({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 1], "data": [0.5]}]})
        small = http_request("/v2/models/one/infer", body.encode())
        head = json.dumps({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 3, 224, 224],
                                       "parameters": {"binary_data_size": 602112}}],
                           "outputs": [{"name": "y", "parameters": {"binary_data": True}}]}).encode()
        upload = http_request("/v2/models/large/infer", head + struct.pack("<f", 0.5) * 150528,
                              [f"Inference-Header-Content-Length: {len(head)}"])
        rows = args.only.split(",")
        numbers = [int(n) for n in rows if n.isdigit()]
        for what, request, conns in (("4-byte identity", small, numbers),
                                     ("600 KB binary upload", upload, [8] if "upload" in rows else [])):
            if not conns:
                continue
            first, fields, reply = exchange(d.port, request)
            if " 200 " not in first.split("\r\n")[0] + " ":
                sys.exit(first + "\n" + reply.decode())
            bare, port = start_bare(folder, reply, fields)
            running.append(bare)
            file = f"{folder}/request"
            open(file, "wb").write(request)
            for n in conns:
                compare(what, (d.port, d.p.pid), (port, bare.pid), n, file)
            bare.kill()
            bare.wait()
        if "refused" in rows:
            refusals(folder, d, {
                name: (what, m, request, request.replace(path, b"/" + name.encode() + b"/"))
                for name, what, m, request, path in (("busy", "4-byte identity", identity, small, b"/one/"),
                                                     ("slow", "600 KB binary upload", mean, upload, b"/large/"))})
    finally:
        for p in running:
            if p.poll() is None:
                p.send_signal(signal.SIGTERM)
                p.wait(20)
        shutil.rmtree(folder)


main()
