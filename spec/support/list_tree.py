# list_tree.py ROOT: what lstat and getxattr say about each file of a tree, and its content's hash; one line a file.
import hashlib, os, stat, sys
os.chdir(sys.argv[1])
links = {}
def show(path):
    s = os.lstat(path)
    first = links.setdefault((s.st_dev, s.st_ino), path)
    kind = stat.S_IFMT(s.st_mode)
    size = s.st_size if kind in (stat.S_IFREG, stat.S_IFLNK) else 0
    more = os.readlink(path) if kind == stat.S_IFLNK else ''
    if kind == stat.S_IFREG:
        with open(path, 'rb') as f:
            more = hashlib.sha256(f.read()).hexdigest()
    xattrs = sorted((n, os.getxattr(path, n, follow_symlinks=False)) for n in os.listxattr(path, follow_symlinks=False))
    dev = s.st_rdev if kind in (stat.S_IFCHR, stat.S_IFBLK) else 0
    link = (s.st_nlink, ascii(first)) if kind != stat.S_IFDIR else ''
    print(ascii(path), oct(s.st_mode), s.st_uid, s.st_gid, s.st_mtime_ns, size, dev, link, more, xattrs)
for at, folders, files in os.walk('.'):
    folders.sort()
    for name in ['.'] + sorted(files) + [f for f in folders if os.path.islink(at + '/' + f)]:
        show(os.path.normpath(at + '/' + name))
