"""Python without what it lacks on Windows. What the standard library itself needs to run here is imported before."""

import asyncio  # noqa: F401
import ctypes.util  # noqa: F401
import multiprocessing.util  # noqa: F401
import os
import platform  # noqa: F401
import select
import selectors  # noqa: F401
import shutil
import signal
import stat
import subprocess
import sys
import tempfile  # noqa: F401

import platformdirs  # noqa: F401

MODULES = ("fcntl", "grp", "pty", "pwd", "readline", "resource", "syslog", "termios", "tty")
OF_OS = (
    "O_CLOEXEC", "O_DIRECTORY", "O_NOCTTY", "O_NOFOLLOW", "O_NONBLOCK", "O_SYNC", "chown", "confstr",
    "fchmod", "fchown", "fork", "forkpty", "get_blocking", "getegid", "geteuid", "getgid", "getloadavg", "getpgid",
    "getuid", "initgroups", "killpg", "lchown", "lockf", "mkfifo", "nice", "openpty", "posix_fadvise", "posix_spawn",
    "pread", "pwrite", "register_at_fork", "sched_getaffinity", "sched_yield", "set_blocking", "setgid", "setsid",
    "setuid", "statvfs", "sync", "sysconf", "sysconf_names", "wait",
)  # fmt: skip
OF_SIGNAL = (
    "ITIMER_REAL", "SIGALRM", "SIGBUS", "SIGCHLD", "SIGCONT", "SIGHUP", "SIGKILL", "SIGPIPE", "SIGQUIT", "SIGSTOP",
    "SIGTSTP", "SIGTTOU", "SIGUSR1", "SIGUSR2", "SIGWINCH", "SIG_BLOCK", "SIG_SETMASK", "SIG_UNBLOCK", "alarm", "pause",
    "pthread_kill", "pthread_sigmask", "setitimer", "siginterrupt", "sigpending", "sigtimedwait", "sigwait",
)  # fmt: skip

for name in MODULES:
    sys.modules[name] = None
for module, names in ((os, OF_OS), (signal, OF_SIGNAL), (select, ("epoll", "poll"))):
    for name in names:
        vars(module).pop(name, None)

shutil._use_fd_functions = False
subprocess.Popen.kill = lambda self: self.send_signal(9)
_select = select.select


def sockets_alone(*arguments):
    """`select.select`, which takes nothing else on Windows."""
    for one in (one for some in arguments[:3] for one in some):
        if not stat.S_ISSOCK(os.fstat(one if isinstance(one, int) else one.fileno()).st_mode):
            raise OSError(10038, "An operation was attempted on something that is not a socket")
    return _select(*arguments)


select.select = sockets_alone
