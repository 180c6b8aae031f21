"""Ask two daemons for their health in turns until stdin ends; print both lists of microseconds.

A process of its own, so that the probes do not wait for the test's interpreter."""
import http.client
import json
import select
import sys
import time

taken = ([], [])
connections = [http.client.HTTPConnection("127.0.0.1", int(port), timeout=60) for port in sys.argv[1:3]]
for c in connections:
    c.connect()
print("ready", flush=True)
while not select.select([sys.stdin], [], [], 0.002)[0]:
    for c, list_ in zip(connections, taken):
        start = time.monotonic()
        c.request("GET", "/v2/health/live")
        r = c.getresponse()
        r.read()
        assert r.status == 200
        list_.append((time.monotonic() - start) * 1e6)
print(json.dumps(taken))
