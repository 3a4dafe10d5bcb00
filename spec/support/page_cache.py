# Which pages of a file are in memory: page_cache.py FILE prints their numbers; page_cache.py --drop FILE first lets go
# of those that can be (posix_fadvise(2), mincore(2)).
import ctypes
import mmap
import os
import sys

path = sys.argv[-1]
fd = os.open(path, os.O_RDONLY)
size = os.fstat(fd).st_size
if "--drop" in sys.argv:
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)

libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
libc.mincore.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p]
address = libc.mmap(None, size, mmap.PROT_READ, mmap.MAP_SHARED, fd, 0)
resident = ctypes.create_string_buffer((size + mmap.PAGESIZE - 1) // mmap.PAGESIZE)
if libc.mincore(address, size, resident) != 0:
    sys.exit(os.strerror(ctypes.get_errno()))
print(" ".join(str(page) for page, is_in in enumerate(resident.raw) if is_in & 1))
