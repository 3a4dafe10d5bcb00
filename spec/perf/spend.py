# spend.py COMMAND...: runs it, quietly, and prints what it and its children took: wall and CPU seconds, peak RSS in MiB.
import resource, subprocess, sys, time
start = time.monotonic()
code = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL).returncode
wall = time.monotonic() - start
use = resource.getrusage(resource.RUSAGE_CHILDREN)
print(wall, use.ru_utime + use.ru_stime, use.ru_maxrss / 1024)
sys.exit(code)
