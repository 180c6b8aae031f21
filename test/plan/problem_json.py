"""What the converters share: problem files with one row of a table on a line."""
import csv
import json
import os
import sys


def folders():
    """The command line of every converter: FROM (the published data) and TO (problem files)."""
    if len(sys.argv) != 3:
        sys.exit(__import__("__main__").__doc__)
    return sys.argv[1], sys.argv[2]


def rows(*path):
    with open(os.path.join(*path), encoding="utf-8-sig", newline="") as f:
        return list(csv.DictReader(f, skipinitialspace=True))


def number(x):
    """At most nine significant digits, which is far more than anything was measured to."""
    if isinstance(x, float):
        x = float("%.9g" % x)
        return int(x) if x == int(x) and abs(x) < 2**53 else x
    return x


def flat(x):
    return not isinstance(x, (dict, list)) or (
        isinstance(x, list) and all(not isinstance(y, (dict, list)) for y in x))


def text_of(x, indent=0):
    pad, inner = "  " * indent, "  " * (indent + 1)
    if isinstance(x, dict):
        if all(flat(y) for y in x.values()) and len(str(x)) < 90:
            return "{%s}" % ", ".join('%s: %s' % (json.dumps(k), text_of(v)) for k, v in x.items())
        parts = ["%s%s: %s" % (inner, json.dumps(k), text_of(v, indent + 1)) for k, v in x.items()]
        return "{\n%s\n%s}" % (",\n".join(parts), pad)
    if isinstance(x, list) and not flat(x) and len(str(x)) > 90:
        return "[\n%s\n%s]" % (",\n".join(inner + text_of(y, indent + 1) for y in x), pad)
    if isinstance(x, list):
        return "[%s]" % ", ".join(text_of(y, indent) for y in x)
    return json.dumps(number(x))


def write(folder, name, problem):
    path = os.path.join(folder, name + ".json")
    with open(path, "w", encoding="utf-8") as f:
        f.write(text_of({"version": 1, **problem}) + "\n")
    print("%7d %s" % (os.path.getsize(path), path))
