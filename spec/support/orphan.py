"""orphan.py COMMAND...: start it, kill it SECONDS after its first line, and say how each process that it left behind ends:
`exit N` or `signal N`, a line each.  SECONDS is the first argument."""
import ctypes
import os
import subprocess
import sys
import time

PR_SET_CHILD_SUBREAPER = 36
if ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
    sys.exit("prctl")
child = subprocess.Popen(sys.argv[2:], stdout=subprocess.PIPE)
child.stdout.readline()
time.sleep(float(sys.argv[1]))
child.kill()
while True:
    try:
        pid, status = os.waitpid(-1, 0)
    except ChildProcessError:
        break
    if pid != child.pid:
        code = os.waitstatus_to_exitcode(status)
        print("exit %d" % code if code >= 0 else "signal %d" % -code)
