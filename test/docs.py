#!/usr/bin/python3
"""make check-docs: what the documents say is so.

    test/docs.py BUILD_FOLDER

Names that the documents mention exist, links resolve, lists that a program prints and lists that a
person wrote agree, and every command of docs/api.md runs against a daemon and is answered with the
status and the members that are written below it.  Only the standard library, mandoc if there.
"""
import glob
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

os.chdir(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.path.abspath(sys.argv[1] if len(sys.argv) > 1 else "build")
DOCS = ["README.md", "CHANGELOG.md"] + sorted(glob.glob("docs/**/*.md", recursive=True))
SOURCE_DIRS = ("lib", "daemon", "cli", "kernels", "include", "test", "systemd", "etc", "docs")
n_passed = n_failed = 0


def check(sentence, wrong):
    """wrong: what contradicts the sentence, as a list of texts."""
    global n_passed, n_failed
    if wrong:
        n_failed += 1
        print("not ok - " + sentence)
        for w in list(wrong)[:40]:
            print("    " + str(w))
    else:
        n_passed += 1
        print("ok - " + sentence)


def read(path):
    with open(path, encoding="utf-8", errors="replace") as f:
        return f.read()


def output(*command):
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          check=True, timeout=30).stdout.decode()


def text_of(path):
    """A document without its code fences."""
    return re.sub(r"^```.*?^```", "", read(path), flags=re.S | re.M)


# ---- lists that a program prints

def options_of(conf):
    """[(section, option, value)] of a configuration file."""
    section, found = "", []
    for line in conf.splitlines():
        if m := re.match(r"\[(\S+)\]", line):
            section = m[1]
        elif m := re.match(r"([a-z-]+) =\s*(.*)", line):
            found.append((section, m[1], m[2]))
    return found


def check_conf():
    gpuletd = BUILD + "/gpuletd"
    check("etc/gpuletd.conf is what `gpuletd --document conf` prints",
          [] if read("etc/gpuletd.conf") == output(gpuletd, "--document", "conf")
          else ["run: build/gpuletd --document conf >etc/gpuletd.conf"])
    dumped = options_of(output(gpuletd, "--config", "/dev/null", "--dump-config"))
    check("etc/gpuletd.conf has every option, at its default",
          set(dumped) ^ set(options_of(read("etc/gpuletd.conf"))))
    page = read(BUILD + "/man/gpuletd.conf.5")
    check("gpuletd.conf(5) has every option", [o for o in dumped if f".It Cm {o[1]} No =" not in page])


def check_man():
    for program, page in (("gpuletd", "gpuletd.8"), ("gpuletctl", "gpuletctl.1")):
        text, help_text = read(f"{BUILD}/man/{page}"), output(BUILD + "/" + program, "--help")
        flags = set(re.findall(r"--([a-z-]+)", help_text))
        listed = set(re.findall(r"^\.It (?:Fl \w , )?Fl Fl ([a-z-]+)", text, re.M))
        used = set(re.findall(r"Fl Fl ([a-z-]+)", text))
        check(f"{page} has every option of --help and no other", (flags ^ listed) | (used - flags))
        check(f"{page} has no placeholder left", re.findall(r"^@.*@$", text, re.M))
    verbs = set(re.findall(r"^  ([a-z]+) .*\n      ", output(BUILD + "/gpuletctl", "--help"), re.M))
    listed = set(re.findall(r"^\.It Cm (\w+)", read(BUILD + "/man/gpuletctl.1"), re.M))
    check("gpuletctl.1 has every verb of --help and no other", verbs ^ listed)
    if not shutil.which("mandoc"):
        return print("mandoc is not installed: the man pages are not linted")
    for page in sorted(glob.glob(BUILD + "/man/*")):
        said = subprocess.run(["mandoc", "-Tlint", "-Wwarning", page], stdout=subprocess.PIPE)
        check(f"mandoc has nothing against {os.path.basename(page)}",
              said.stdout.decode().splitlines())


# ---- names that documents mention

def sources():
    return [f for d in SOURCE_DIRS for f in glob.glob(d + "/**/*", recursive=True)
            if os.path.isfile(f) and re.search(r"\.(c|h|py|sh)$", f)]


def files_of(token):
    """The files that a token such as `lib/plan/*.c` or `daemon/http.c` names; None: not a path."""
    token = token.rstrip("/")
    if not re.match(r"(%s)(/|$)[\w./*@-]*$" % "|".join(SOURCE_DIRS), token) or "/" not in token:
        return None
    return glob.glob(token)


def passages(text):
    """Paragraphs, but each row of a table for itself."""
    return re.split(r"\n\s*\n|\n(?=[|-])", text)


def check_names(path, everything):
    """A function must be in one of the files that its passage names, or in a public header."""
    public = "\n".join(read(f) for f in glob.glob("include/gpulet/*.h"))
    missing = []
    for passage in passages(text_of(path)):
        tokens = re.findall(r"`([^`]+)`", passage)
        files = []
        for token in tokens:
            found = files_of(token)
            if found is None:
                continue
            if not found:
                missing.append(token)
            for f in found:
                files += glob.glob(f + "/**/*.[ch]", recursive=True) if os.path.isdir(f) else [f]
        here = "\n".join([read(f) for f in files] + [public]) if files else everything
        for token in tokens:
            if (m := re.match(r"(\w+)\(\)$", token)) and not re.search(rf"\b{m[1]}\(", here):
                missing.append(f"{token} in {' '.join(files[:4]) or 'the sources'}")
            if (m := re.match(r"struct (\w+)$", token)) and f"struct {m[1]} {{" not in everything:
                missing.append(token)
    check(f"files, functions and structs that {path} names exist", missing)


def anchor(heading):
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def check_links(path):
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", text_of(path)):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, part = target.partition("#")
        file = os.path.normpath(os.path.join(os.path.dirname(path), file)) if file else path
        if not os.path.exists(file):
            broken.append(target)
        elif part and part not in [anchor(h) for h in re.findall(r"^#+ (.*)", read(file), re.M)]:
            broken.append(target)
    check(f"links in {path} resolve", broken)


def check_commands(path, targets, verbs):
    """`make X` names a target, `./bootstrap X` a goal, `gpuletctl X` a verb."""
    code = "\n".join(re.findall(r"`([^`\n]+)`", text_of(path)) +
                     re.findall(r"^```.*?\n(.*?)^```", read(path), re.S | re.M))
    wrong = [f"make {t}" for t in re.findall(r"\bmake ([a-z][a-z-]*)", code) if t not in targets]
    wrong += [f"./bootstrap {g}" for g in re.findall(r"\./bootstrap (\w+)", code)
              if g not in ("demo", "check")]
    wrong += [f"gpuletctl {v}" for v in re.findall(r"\bgpuletctl ([a-z]\w*)", code) if v not in verbs]
    check(f"commands in {path} exist", wrong)


# ---- lists that a person wrote

def check_routes():
    macros = {"MODEL": "/v2/models/{m}", "VERSION": "/v2/models/{m}/versions/{v}"}
    rows = []
    for method, parts in re.findall(r'^ *\{"([A-Z]+)", ((?:"[^"]*"|MODEL|VERSION| )+),',
                                    read("daemon/v2.c") + read("daemon/admin.c"), re.M):
        rows.append(method + " " + re.sub(r'"([^"]*)"|(\w+)|\s', lambda m: m[1] or macros.get(m[2], ""),
                                          parts))
    listed = set(re.findall(r"`((?:GET|POST|PUT|PATCH|DELETE) /[^`?]*)", text_of("docs/api.md")))
    # A version may stand in every path of a model; the document says so once.
    rows = {r.replace("/versions/{v}", "") for r in rows}
    check("docs/api.md has every route and no other", rows ^ listed)


def check_metrics():
    names = set(re.findall(r'"((?:nv_inference|gpuletd)_\w+)[{" ]', read("daemon/metrics.c")))
    check("docs/admin.md has every metric and no other",
          names ^ set(re.findall(r"`((?:nv_inference|gpuletd)_\w+)", text_of("docs/admin.md"))))


def check_operators():
    known = set(re.findall(r"OP\((\w+)\)", read("include/gpulet/ops.h").split("enum op_id")[0]))
    known.discard("name")
    cpu = {"Constant"} | set(re.findall(r"\[OP_(\w+)\]", read("kernels/cpu/cpu.c")))
    cpu |= set(re.findall(r"case OP_(\w+):\s*(?:case OP_\w+:\s*)*r = lower_",
                          read("lib/backend/cpu/compile.c")))
    cpu |= set(re.findall(r"\[OP_(\w+)\] = \{infer_flow", read("lib/model/infer.c")))  # late: graph_run()
    table = re.findall(r"^\| (\w+) \| (yes|no) \| (.*) \|$", read("docs/operators.md"), re.M)
    rows = {op: says for op, says, _ in table}
    check("docs/operators.md has every operator of include/gpulet/ops.h and no other",
          set(rows) ^ known)
    check("docs/operators.md says what the cpu backend takes",
          [op for op, says in rows.items() if (says == "yes") != (op in cpu)])
    listed = read("docs/operators.md").split("## On the cuda backend")[1].split("The operators:")[1]
    check("docs/operators.md lists what the cuda backend takes",
          set(re.findall(r"\w+", listed.split("\n\n")[1])) ^
          set(re.findall(r"\[OP_(\w+)\] =", read("lib/backend/cuda/compile.c"))))
    halves = read("docs/operators.md").split("load and store 16 bits")[1]
    check("docs/operators.md lists what keeps 16 bits on a GPU",
          set(re.findall(r"\w+", halves.split("\n\n")[1])) ^
          set(re.findall(r"\[OP_(\w+)\] = KEEPS", read("lib/backend/cuda/half.c"))))
    check("docs/operators.md says how",
          [f"{op}: {how}" for op, says, how in table if says == "yes" and not says_how(op, how)])


def says_how(op, how):
    """Does it name the library, our kernel and the plain loops where the sources do?"""
    plan = dict(re.findall(r"\[OP_(\w+)\] = (\w+)", read("kernels/cpu/cpu.c"))).get(op)
    cases = re.findall(r"((?:case OP_\w+:\s*)+)r = lower_(?:conv|deconv|product|pool|bytes)\(",
                       read("lib/backend/cpu/compile.c"))
    library = {o for c in cases for o in re.findall(r"OP_(\w+)", c)}
    own = plan not in (None, "plan_plain", "plan_copy_first")
    return (("oneDNN" in how) == (op in library) and ("own kernel" in how) == own and
            (plan != "plan_plain" or "plain loops" in how) and
            (plan != "plan_copy_first" or "no work" in how))


def check_gpu_results():
    check("docs/gpu-results.md is what test/gpu/results.py makes of docs/gpu-results",
          [] if read("docs/gpu-results.md") == output(sys.executable, "test/gpu/results.py")
          else ["run: test/gpu/results.py >docs/gpu-results.md"])


# ---- the commands of docs/api.md, in order, against one daemon

def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Daemon:
    def __init__(self, folder):
        self.folder, self.http, self.admin = folder, free_port(), free_port()
        os.mkdir(folder + "/state")
        with open(folder + "/gpuletd.conf", "w") as f:
            f.write(f"[http]\nlisten = 127.0.0.1:{self.http}\n"
                    f"[admin]\nlisten = 127.0.0.1:{self.admin}\nsocket = {folder}/admin.sock\n"
                    f"[state]\ndirectory = {folder}/state\n")
        self.log = open(folder + "/log", "w+")
        self.process = subprocess.Popen([BUILD + "/gpuletd", "--config", folder + "/gpuletd.conf"],
                                        stdout=self.log, stderr=self.log)
        for _ in range(200):
            if self.process.poll() is not None or self.run(
                    "curl localhost:8000/v2/health/ready")[0] == 200:
                return
            time.sleep(0.05)

    def run(self, command):
        """(status of the last curl, what it was answered, what the command said, exit status)"""
        for a, b in (("localhost:8000", f"127.0.0.1:{self.http}"),
                     ("localhost:8001", f"127.0.0.1:{self.admin}"),
                     ("/run/gpuletd/", self.folder + "/")):
            command = command.replace(a, b)
        script = ("set -o pipefail\n"
                  f"curl() {{ command curl -sS -m 60 -o {self.folder}/reply -w '%{{http_code}}' \"$@\""
                  f" 2>&1 >{self.folder}/status; }}\n" + command)
        for f in ("reply", "status"):
            open(f"{self.folder}/{f}", "w").close()
        env = dict(os.environ, PATH=BUILD + ":" + os.environ["PATH"],
                   GPULETCTL_SERVER=f"http://127.0.0.1:{self.admin}")
        done = subprocess.run(["bash", "-c", script], env=env, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, timeout=120)
        status = read(self.folder + "/status")
        return (int(status) if status.isdigit() else 0, read(self.folder + "/reply"),
                done.stdout.decode(errors="replace"), done.returncode)

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()


def examples(path):
    """(command, what is written below it) of each console fence."""
    for fence in re.findall(r"^```console\n(.*?)^```", read(path), re.S | re.M):
        for example in re.split(r"^\$ ", fence, flags=re.M)[1:]:
            status = re.search(r"^\d{3}\b", example, re.M)
            at = status.start() if status else len(example)
            yield example[:at].strip(), example[at:].strip()


def differs(said, got, at="reply"):
    """Members that are written but not there, or of another type.  Values may differ."""
    if isinstance(said, dict) and isinstance(got, dict):
        for k, v in said.items():
            if k not in got:
                return f"{at}: there is no '{k}' in {json.dumps(got)[:300]}"
            if d := differs(v, got[k], f"{at}.{k}"):
                return d
        return None
    if isinstance(said, list) and isinstance(got, list):
        return differs(said[0], got[0], at + "[0]") if said and got else (
            f"{at}: is empty" if said else None)
    number = (int, float)
    if type(said) is type(got) or all(isinstance(v, number) and not isinstance(v, bool)
                                      for v in (said, got)):
        return None
    return f"{at}: {json.dumps(said)[:100]} is written, {json.dumps(got)[:300]} was answered"


def check_example(daemon, command, written):
    status, reply, said, rc = daemon.run(command)
    want = re.match(r"(\d{3})\b\s*(.*)", written, re.S)
    first = command.splitlines()[0]
    if not want:
        return check(first, [] if rc == 0 and said.strip() else [f"exit status {rc}: {said[:500]}"])
    wrong = [] if status == int(want[1]) else [f"answered {status} {reply[:500]}{said[:300]}"]
    if not wrong and want[2].startswith(("{", "[")):
        try:
            if d := differs(json.loads(want[2]), json.loads(reply)):
                wrong = [d]
        except ValueError as e:
            wrong = [f"{e}: {reply[:300]}"]
    check(f"{first}  ->  {want[1]}", wrong)


def check_examples(path):
    with tempfile.TemporaryDirectory(prefix="gpuletd-docs-") as folder:
        daemon = Daemon(folder)
        try:
            if daemon.process.poll() is not None:
                return check("gpuletd starts", [read(folder + "/log")])
            for command, written in examples(path):
                check_example(daemon, command, written)
        finally:
            status = daemon.stop()
        check("gpuletd drains and exits with status 0",
              [] if status == 0 else [f"status {status}", read(folder + "/log")[-2000:]])


def main():
    everything = "\n".join(read(f) for f in sources())
    targets = set(re.findall(r"^([a-z][a-z-]*):", read("Makefile"), re.M))
    verbs = set(re.findall(r"^  ([a-z]+) .*\n      ", output(BUILD + "/gpuletctl", "--help"), re.M))
    check_conf()
    check_man()
    for path in DOCS:
        check_names(path, everything)
        check_links(path)
        check_commands(path, targets, verbs)
    check_routes()
    check_metrics()
    check_operators()
    check_gpu_results()
    check_examples("docs/api.md")
    print(f"{n_passed} passed, {n_failed} failed")
    sys.exit(n_failed > 0)


main()
