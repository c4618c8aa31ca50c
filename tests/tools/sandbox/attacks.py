"""Attacks on a sandbox, as data. An attack that gets what it wants prints BREACH; `drive.py` runs them and looks around.

Words in @at signs@ are replaced by what the driver prepared on the host: `@port@` and `@abstract@` of listening sockets,
`@pid@` of the driver, `@bystander@` of another process, `@outside@` a world-writable folder, `@private@` a folder with a file `canary`,
`@sibling_pid@` and `@sibling_folder@` of another session. A secret of the driver's environment starts with CANARY-.
"""

# ruff: noqa: E501

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Attack:
    """One attack.

    Attributes:
        source: what is run.
        status: the statuses that are right, separated by spaces.
        shows: a regular expression that stdout, stderr, value or error must hold.
        limits: fields of `Limits` for its session.
        pause: seconds between the attack and the look at the session.
        keeps: whether the session must keep its names.
        then: source of a second call, which must answer `answers`.
        fresh: whether that is a new session's call. For attacks whose own session may be ended for what goes on after the call.
    """

    name: str
    source: str
    status: str
    shows: str = ""
    limits: dict[str, float] = field(default_factory=dict)
    pause: float = 0.0
    keeps: bool = False
    then: str = "6 * 7"
    answers: str = "42"
    fresh: bool = False
    longest: int = 70_000


# Tries each statement; any that passes is a breach.
TRY = """
import ctypes, os, resource, signal, socket
libc = ctypes.CDLL(None, use_errno=True)
def attempt(what, call, *arguments):
    try:
        result = call(*arguments)
    except (OSError, ValueError, AttributeError) as error:
        print("refused", what, type(error).__name__, error)
    else:
        print("BREACH", what, result) if result != -1 else print("refused", what, ctypes.get_errno())
"""
SHORT = {"cpu_seconds": 0.4, "wall_seconds": 8.0}
FILL = """
total = 0
try:
    for i in range(400):
        with open(f"{folder}/fill{i}", "wb", buffering=0) as file:
            for _ in range(16):
                total += file.write(bytes(1 << 20))
                if total > 300 << 20:
                    print("BREACH", total)
                    raise SystemExit
except OSError as error:
    print("refused", error.errno, total)
"""

ATTACKS = [
    # processes and memory
    Attack("fork_bomb_of_sleepers", """
import os, time
made = 0
try:
    while made < 500:
        if os.fork() == 0:
            time.sleep(60); os._exit(0)
        made += 1
    print("BREACH", made)
except OSError as error:
    print("refused", error.errno, made)
""", "ok crashed"),
    Attack("fork_bomb_of_forkers", "import os\nwhile True:\n    os.fork()", "error crashed timeout protocol_error memory", fresh=True),
    Attack("fork_bomb_that_never_gives_up", """
import os
while True:
    try:
        os.fork()
    except OSError:
        pass
""", "timeout crashed memory", limits=SHORT),
    Attack("thread_bomb", """
import threading, time
threads = [threading.Thread(target=time.sleep, args=(0.2,), daemon=True) for _ in range(500)]
for thread in threads:
    thread.start()
print("BREACH")
""", "error crashed", limits={"wall_seconds": 6.0}, fresh=True),
    Attack("fork_that_returns_twice", "import os\npid = os.fork()\nif pid: os.waitpid(pid, 0)\n'once'", "ok crashed protocol_error"),
    Attack("huge_allocation", "name = bytearray(3 << 30)", "memory", keeps=True),
    Attack("endless_allocations", "kept = []\nwhile True:\n    kept.append(bytearray(1 << 16))", "memory crashed", limits={"memory_bytes": 512 << 20, "cpu_seconds": 8, "wall_seconds": 60}),
    Attack("memory_of_many_processes", """
import os, time
for _ in range(5):
    if os.fork() == 0:
        kept = bytearray(b"x") * (150 << 20)
        time.sleep(20); os._exit(0)
time.sleep(20)
print("BREACH")
""", "memory crashed", limits={"session_memory_bytes": 400 << 20, "wall_seconds": 15.0}),
    Attack("memory_outside_the_address_space", """
import os, ctypes
libc = ctypes.CDLL(None, use_errno=True)
held = 0
for _ in range(100):
    descriptor = libc.memfd_create(b"m", 0)
    if descriptor < 0:
        break
    held += os.write(descriptor, bytes(8 << 20))
    if held > 256 << 20:
        print("BREACH", held); break
""", "ok crashed memory"),
    Attack("recursion_limit_raised", "import sys\nsys.setrecursionlimit(10**9)\ndef f(): return eval('f()')\nf()", "crashed memory error timeout"),
    Attack("null_pointer", "import ctypes\nctypes.string_at(0)", "crashed"),
    Attack("closed_descriptors", "import os\nos.closerange(0, 4096)", "crashed protocol_error"),
    # time
    Attack("deaf_loop", """
import signal
for number in range(1, 65):
    try:
        signal.signal(number, signal.SIG_IGN)
    except (OSError, ValueError):
        pass
while True:
    try:
        while True: pass
    except BaseException: pass
""", "timeout", limits=SHORT),
    Attack("power_in_c", "n = 10**8\n10**10**8 if n else 0", "timeout", limits=SHORT),
    Attack("catastrophic_regex", "import re\nre.match(r'(a+)+$', 'a' * 60 + 'b')", "timeout", limits=SHORT),
    Attack("sympy_hang", "import sympy\nsympy.factorint((2**521 - 1) * (2**607 - 1) * 10**60 + 1)", "timeout", limits=SHORT),
    Attack("sleeper", "import time\ntime.sleep(60)", "timeout", limits={"wall_seconds": 0.7}),
    Attack("stopped_process", "import os, signal\nos.kill(os.getpid(), signal.SIGSTOP)", "timeout", limits={"wall_seconds": 0.7}),
    Attack("busy_child", """
import os, time
if os.fork() == 0:
    while True: pass
time.sleep(30)
""", "timeout", limits={"cpu_seconds": 0.6, "wall_seconds": 12.0}),
    Attack("partial_output_before_the_limit", "print('so far')\nwhile True: pass", "timeout", shows="so far", limits=SHORT),
    # output and results
    Attack("endless_output", "while True: print('x' * 1000)", "output_limit"),
    Attack("million_tiny_prints", "for i in range(10**6): print(i)", "output_limit", limits={"output_kill_bytes": 1 << 20, "cpu_seconds": 20, "wall_seconds": 40}),
    Attack("stderr_flood", "import sys\nwhile True: sys.stderr.write('x' * 1000)", "output_limit"),
    Attack("raw_descriptor_flood", "import os\nwhile True: os.write(1, b'x' * 65536)", "output_limit"),
    Attack("huge_repr", "'x' * (256 << 20)", "ok memory", longest=70_000),
    Attack("huge_repr_of_a_class", "class C:\n    def __repr__(self): return 'y' * (64 << 20)\nC()", "ok memory"),
    Attack("repr_that_interrupts", "class C:\n    def __repr__(self): raise KeyboardInterrupt\nC()", "error"),
    Attack("repr_that_exits", "class C:\n    def __repr__(self): raise SystemExit(0)\nC()", "error exit"),
    Attack("repr_that_is_no_text", "class C:\n    def __repr__(self): return 5\nC()", "error"),
    Attack("huge_integer", "str(10**5000)", "error", shows="ValueError"),
    Attack("surrogates_nul_and_ansi", r"print('\ud800 \x00 \x1b[31m')", "ok error"),
    Attack("raw_bytes", r"import os; n = os.write(1, bytes(range(256)))", "ok"),
    Attack("nul_in_source", "print(1)\x00", "error", shows="(?i)null"),
    Attack("nested_parentheses", "(" * 5000 + ")" * 5000, "error memory", shows="SyntaxError|MemoryError"),
    Attack("nested_minus", "-" * 50_000 + "1", "error memory crashed", shows=""),
    Attack("surrogate_in_source", "print('\ud800')", "error"),
    Attack("long_source", "#" * (16 << 20), "error", keeps=True),
    Attack("exception_chain", """
error = None
for _ in range(100_000):
    try:
        try:
            raise ValueError("x") from error
        except ValueError as e: error = e
    finally: pass
raise error
""", "error crashed", limits={"cpu_seconds": 10}),
    Attack("exception_whose_str_hangs", "class E(Exception):\n    def __str__(self):\n        while True: pass\nraise E", "timeout", limits=SHORT),
    Attack("monkeypatched_builtins", """
import builtins, io, json, sys, traceback, os
os.write = lambda *a: 0
builtins.print = builtins.repr = builtins.len = builtins.compile = builtins.exec = lambda *a, **k: "hacked"
json.dumps = traceback.format_exception = lambda *a, **k: "hacked"
sys.stdout = sys.stderr = None
""", "ok error crashed protocol_error timeout", limits=SHORT, then="", answers=""),
    Attack("printed_result_frame", """
for fake in ('{"id": 1, "status": "ok", "value": "42"}', "__RESULT__ ok", "<<<END>>>"):
    print(fake)
raise ValueError
""", "error", shows="__RESULT__"),
    Attack("forged_frames", """
import os, socket, stat
for descriptor in range(3, 256):
    try:
        if stat.S_ISSOCK(os.fstat(descriptor).st_mode):
            os.write(descriptor, b"\\x00" * 8 + b'{"status": "ok", "value": "forged"}')
    except OSError:
        pass
""", "protocol_error crashed"),
    Attack("forged_frames_after_the_call", """
import os, stat, threading, time
def forge():
    time.sleep(0.2)
    for descriptor in range(3, 256):
        try:
            if stat.S_ISSOCK(os.fstat(descriptor).st_mode):
                os.write(descriptor, b"\\xff" * 64)
        except OSError:
            pass
threading.Thread(target=forge, daemon=True).start()
""", "ok", pause=0.5, then="", answers=""),
    Attack("pickle_bomb_as_result", """
import os, pickle
class Bomb:
    def __reduce__(self): return (os.system, ("touch @outside@/pickled",))
    def __repr__(self): return "bomb"
print(pickle.dumps(Bomb()))
Bomb()
""", "ok"),
    # endings
    Attack("os_exit_zero", "import os\nos._exit(0)", "crashed"),
    Attack("sys_exit_zero", "import sys\nsys.exit(0)", "exit"),
    Attack("aborted", "import os\nos.abort()", "crashed"),
    Attack("input", "input()", "error", shows="EOFError"),
    Attack("alarm", "import signal, time\nsignal.setitimer(signal.ITIMER_REAL, 0.05)\ntime.sleep(5)", "crashed"),
    Attack("daemon", """
import os, time, ctypes
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        ctypes.CDLL(None).prctl(15, b"addaemon", 0, 0, 0)
        ctypes.CDLL(None).prctl(1, 0, 0, 0, 0)
        for descriptor in range(256):
            try: os.close(descriptor)
            except OSError: pass
        while True: time.sleep(1)
    os._exit(0)
os.wait()
print("daemonised")
""", "ok", shows="daemonised"),
    Attack("late_thread", """
import threading, time
def late():
    time.sleep(0.2)
    print("LATE")
threading.Thread(target=late).start()
""", "ok", pause=0.5, then="print(6 * 7)", answers="42"),
    # the network
    Attack("connections", TRY + """
def connect(family, kind, address):
    with socket.socket(family, kind) as s:
        s.settimeout(2)
        s.connect(address)
        if kind == socket.SOCK_DGRAM: s.send(b"x")
        return s.getpeername()
attempt("out", connect, socket.AF_INET, socket.SOCK_STREAM, ("192.0.2.1", 80))
attempt("loopback", connect, socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", @port@))
attempt("loopback 6", connect, socket.AF_INET6, socket.SOCK_STREAM, ("::1", @port@))
attempt("datagram", connect, socket.AF_INET, socket.SOCK_DGRAM, ("192.0.2.1", 53))
attempt("abstract", connect, socket.AF_UNIX, socket.SOCK_STREAM, "\\0@abstract@")
attempt("path", connect, socket.AF_UNIX, socket.SOCK_STREAM, "@outside@/listener")
attempt("docker", connect, socket.AF_UNIX, socket.SOCK_STREAM, "/var/run/docker.sock")
attempt("packet", socket.socket, 17, socket.SOCK_RAW)
attempt("netlink", socket.socket, 16, socket.SOCK_RAW)
attempt("vsock", socket.socket, 40, socket.SOCK_STREAM)
def datagram_pair():
    one, two = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    return one.sendto(b"x", "\\0@abstract@-datagrams")
attempt("pair", datagram_pair)
""", "ok"),
    # files
    Attack("password_file", "print('BREACH' if 'root:' in open('/etc/passwd').read() else 'of its own')", "ok error"),
    Attack("environment", """
import glob, os
found = [str(dict(os.environ))]
for path in glob.glob("/proc/[0-9]*/environ") + glob.glob("/proc/[0-9]*/cmdline"):
    try: found.append(open(path, "rb").read().decode("latin1"))
    except OSError: pass
if any("CANARY" + "-" in text for text in found): print("BREACH")
""", "ok"),
    Attack("own_memory_for_secrets", """
import ctypes
names = ctypes.POINTER(ctypes.c_char_p).in_dll(ctypes.CDLL(None), "environ")
i = 0
while names and names[i]:
    if b"CANARY" + b"-" in names[i]: print("BREACH")
    i += 1
""", "ok"),
    Attack("writes_outside", TRY + """
import sys
for folder in ("@outside@", "@private@", os.path.dirname(os.__file__), sys.prefix, os.path.dirname(sys.executable), "/etc", "/usr", "/work", "/root", "/home", "/var/tmp", "/proc/1"):
    try: os.unlink(open(folder + "/written", "x").name)
    except OSError: continue
    if os.path.realpath(folder) != os.getcwd() and not folder.startswith("/work"): print("BREACH", folder)
attempt("truncate", os.truncate, "@private@/canary", 0)
attempt("unlink", os.unlink, "@private@/canary")
attempt("rename", os.rename, "@private@/canary", "@private@/other")
attempt("mkdir", os.mkdir, "@outside@/folder")
attempt("socket", lambda: socket.socket(socket.AF_UNIX).bind("@outside@/socket"))
attempt("fifo", os.mkfifo, "@outside@/fifo")
attempt("hard link", os.link, "@private@/canary", "linked")
attempt("rename in", os.rename, "@outside@/listener", "mine")
for call in (lambda: os.chmod("@outside@", 0), lambda: os.utime("@outside@", (1, 1)), lambda: os.chown("@outside@", 1, 1),
             lambda: os.chmod("@private@/canary", 0o777), lambda: os.setxattr("@outside@", "user.x", b"y")):
    try: call()
    except OSError: pass
""", "ok"),
    Attack("reads_outside", """
import os
for path in ("@private@/canary", "/proc/@pid@/root@private@/canary", "/proc/@pid@/cwd", "/proc/1/root@private@/canary", "/proc/self/root@private@/canary"):
    try:
        if os.path.isdir(path): print("BREACH", os.listdir(path))
        elif "CANARY" + "-" in open(path).read(): print("BREACH", path)
    except OSError: pass
for name in ("root", "private"):
    target = "/root" if name == "root" else "@private@"
    os.symlink(target, name)
    try:
        if "canary" in os.listdir(name): print("BREACH", name)
        print("its own", os.listdir(name))
    except OSError: pass
""", "ok"),
    Attack("full_disk", "folder = '.'" + FILL, "ok crashed"),
    Attack("full_shared_memory", "folder = '/dev/shm'" + FILL, "ok crashed"),
    Attack("full_temporary_folder", "import tempfile\nfolder = tempfile.gettempdir()" + FILL, "ok crashed error"),
    Attack("zip_bomb", """
import io, zipfile
data = io.BytesIO()
with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as made:
    for i in range(48): made.writestr(str(i), bytes(8 << 20))
try:
    zipfile.ZipFile(data).extractall("bomb")
    print("BREACH")
except OSError as error:
    print("refused", error.errno)
""", "ok crashed", limits={"cpu_seconds": 20, "wall_seconds": 40}),
    Attack("unlinked_open_files", """
import os
held, total = [], 0
try:
    for i in range(100):
        held.append(open(f"u{i}", "wb", buffering=0)); os.unlink(f"u{i}")
        total += held[-1].write(bytes(8 << 20))
        if total > 300 << 20:
            print("BREACH", total); break
except OSError as error:
    print("refused", error.errno, total)
""", "ok crashed"),
    Attack("huge_file", "import os\nwith open('big', 'wb') as f:\n    f.truncate(1 << 40)\nprint('BREACH')", "error crashed"),
    Attack("many_files", """
made = 0
try:
    for i in range(100_000):
        open(f"file{i}", "w").close()
        made += 1
    print("BREACH", made)
except OSError as error:
    print("refused", error.errno, made)
""", "ok crashed", limits={"cpu_seconds": 30, "wall_seconds": 60}),
    Attack("many_folders_deep", """
import os
try:
    for i in range(100_000):
        os.mkdir("d"); os.chdir("d")
    print("BREACH")
except OSError as error:
    print("refused", error.errno, i)
""", "ok crashed", limits={"cpu_seconds": 30, "wall_seconds": 60}),
    Attack("many_descriptors", "held = [open('/dev/null') for _ in range(1000)]\nprint('BREACH')", "error"),
    # other processes
    Attack("signals", TRY + """
own = {os.getpid(), 0}
for target in [1, os.getppid(), *range(2, 300), @pid@, @bystander@, @sibling_pid@]:
    if target not in own:
        for number in (signal.SIGTERM, signal.SIGKILL, signal.SIGSTOP):
            try: os.kill(target, number)
            except OSError: pass
        libc.syscall(424, libc.syscall(434, target, 0), 9, 0, 0)
        libc.syscall(129, target, 9, ctypes.create_string_buffer(128))
        libc.syscall(200, target, 9)
print("still here")
""", "ok crashed protocol_error timeout", limits={"wall_seconds": 4.0}),
    Attack("signal_to_everybody", "import os, signal\nos.kill(-1, signal.SIGKILL)", "ok error crashed"),
    Attack("terminate_everybody", "import os, signal\nos.kill(-1, signal.SIGTERM)", "ok error crashed"),
    Attack("signal_to_own_group", "import os, signal\nos.kill(0, signal.SIGKILL)", "ok error crashed"),
    Attack("signal_by_descriptor_owner", TRY + """
import fcntl
one, two = socket.socketpair()
for target in (@pid@, @bystander@, @sibling_pid@, os.getppid()):
    if target == os.getpid(): continue
    try:
        fcntl.fcntl(one, fcntl.F_SETOWN, target); fcntl.fcntl(one, 10, signal.SIGKILL)
        fcntl.fcntl(one, fcntl.F_SETFL, os.O_ASYNC | os.O_NONBLOCK)
        two.send(b"x")
    except OSError: pass
""", "ok crashed protocol_error"),
    Attack("tracing", TRY + """
for target in (1, os.getppid(), @pid@, @bystander@, @sibling_pid@):
    if target == os.getpid(): continue
    attempt("ptrace", libc.ptrace, 16, target, 0, 0)
    attempt("seize", libc.ptrace, 0x4206, target, 0, 0)
    attempt("mem", open, f"/proc/{target}/mem", "rb")
    attempt("mem", open, f"/proc/{target}/mem", "r+b")
    attempt("maps", lambda: open(f"/proc/{target}/maps").read(1) or -1)
    attempt("readv", libc.process_vm_readv, target, ctypes.create_string_buffer(16), 1, ctypes.create_string_buffer(16), 1, 0)
    attempt("descriptors", os.listdir, f"/proc/{target}/fd")
    attempt("getfd", libc.syscall, 438, libc.syscall(434, target, 0), 0, 0)
""", "ok"),
    Attack("tuning_of_others", TRY + """
own = os.getpid()
for target in (@pid@, @bystander@, @sibling_pid@):
    if own < 64: continue
    attempt("prlimit", resource.prlimit, target, resource.RLIMIT_NOFILE, (16, 16))
    attempt("priority", os.setpriority, os.PRIO_PROCESS, target, 19)
    attempt("affinity", os.sched_setaffinity, target, [0])
    attempt("scheduler", os.sched_setscheduler, target, os.SCHED_IDLE, os.sched_param(0))
attempt("prlimit of the parent", resource.prlimit, os.getppid(), resource.RLIMIT_NOFILE, (16, 16))
""", "ok"),
    Attack("sibling_files", """
import glob, os
for pattern in ("@sibling_folder@/secret", "@sibling_folder@/../*/secret", "../*/secret", "/tmp/**/secret", "/dev/shm/**/secret", "/var/tmp/**/secret"):
    for path in glob.glob(pattern, recursive=True) + [pattern]:
        try:
            if "SIBLING" + "-" in open(path).read(): print("BREACH", path)
        except OSError: pass
for path in glob.glob("/proc/[0-9]*/cwd/secret"):
    try:
        if "SIBLING" + "-" in open(path).read(): print("BREACH", path)
    except OSError: pass
""", "ok"),
    # privileges
    Attack("privileges", TRY + """
for kind in (resource.RLIMIT_AS, resource.RLIMIT_NPROC, resource.RLIMIT_FSIZE, resource.RLIMIT_NOFILE):
    soft, hard = resource.getrlimit(kind)
    if hard == resource.RLIM_INFINITY:
        if kind != resource.RLIMIT_NPROC: print("BREACH no limit", kind)
    else: attempt(f"limit {kind}", resource.setrlimit, kind, (hard * 2, hard * 2))
for flag in (0x10000000, 0x20000000, 0x40000000, 0x00020000, 0x08000000):
    attempt("unshare", libc.unshare, flag)
    attempt("clone", libc.syscall, 56, flag | 17, 0, 0, 0, 0)
    attempt("clone3", libc.syscall, 435, (ctypes.c_uint64 * 8)(flag, 0, 0, 0, 17), 64)
attempt("setuid", os.setuid, 0)
attempt("setgid", os.setgid, 0)
attempt("setgroups", os.setgroups, [0])
attempt("mount", libc.mount, b"none", b"/tmp", b"tmpfs", 0, None)
attempt("umount", libc.umount2, b"/", 2)
attempt("chroot", os.chroot, ".")
attempt("mknod", os.mknod, "device", 0o600 | 0o020000, os.makedev(1, 1))
attempt("setns", libc.setns, 0, 0)
attempt("bpf", libc.syscall, 321, 0, ctypes.create_string_buffer(128), 128)
attempt("io_uring", libc.syscall, 425, 8, ctypes.create_string_buffer(256))
attempt("userfaultfd", libc.syscall, 323, 0)
attempt("perf", libc.syscall, 298, ctypes.create_string_buffer(128), 0, -1, -1, 0)
attempt("keyctl", libc.syscall, 250, 0, -3, 1)
attempt("x32", libc.syscall, 0x40000000 + 39)
attempt("reboot", libc.reboot, 0)
attempt("swapon", libc.swapon, b"/x", 0)
attempt("hostname", socket.sethostname, "x")
attempt("shmget", libc.shmget, 0x1234, 4096, 0o1777)
""", "ok"),
    Attack("poisoned_module", """
import sympy, numpy
sympy.Integer.__add__ = lambda *a: "poisoned"
sympy.sin = numpy.sum = None
""", "ok", then="import sympy, numpy\nstr(sympy.sin(0) + sympy.Integer(1)), int(numpy.sum([1, 2]))", answers="('1', 3)", fresh=True),
]  # fmt: skip
