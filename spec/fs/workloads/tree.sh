#!/bin/sh
# tree.sh FOLDER COUNT: what a package manager does: a tree of COUNT small files is made, looked at, read, moved, copied and
# removed.  Says `ok' at the end.
set -eu
fail() { echo "tree: $*"; exit 1; }
cd "$1"
count=$2

# Twenty files a package, with folders as packages have them; made aside and moved into place, as npm does.
mkdir -p modules staging
n=0 made=0
while [ $made -lt "$count" ]; do
	package=package-$n
	mkdir -p "staging/$package/lib/deep/er" "staging/$package/bin"
	k=0
	while [ $k -lt 20 ] && [ $made -lt "$count" ]; do
		case $((k % 4)) in
		0) file=lib/index-$k.js ;;
		1) file=lib/deep/module-$k.js ;;
		2) file=lib/deep/er/data-$k.json ;;
		3) file=file-$k.md ;;
		esac
		echo "module $n, file $k" >"staging/$package/$file"
		k=$((k + 1)) made=$((made + 1))
	done
	ln -s "../lib/index-0.js" "staging/$package/bin/run"
	mv "staging/$package" "modules/$package"
	n=$((n + 1))
done
[ "$(find modules -type f | wc -l)" -eq "$count" ] || fail "made $count files, found $(find modules -type f | wc -l)"
[ "$(find modules -type l | wc -l)" -eq "$n" ] || fail links
[ "$(cat modules/package-0/bin/run)" = 'module 0, file 0' ] || fail 'a link leads elsewhere'
[ "$(find modules -type f -exec cat {} + | wc -l)" -eq "$count" ] || fail 'reading all'
[ "$(find modules -type f -newer modules/package-0/lib/index-0.js -size -2 | wc -l)" -lt "$count" ] || fail 'times'
cp -a modules copy
diff -r modules copy || fail 'the copy differs'
mv modules moved
[ ! -e modules ] || fail 'the old name is still there'
diff -r moved copy || fail 'the move changed something'
rm -r moved
[ ! -e moved ] || fail 'removed, and still there'
[ "$(find copy -type f | wc -l)" -eq "$count" ] || fail 'the copy lost something'
rm -r copy staging
[ -z "$(ls -A)" ] || fail "left: $(ls -A)"
echo ok
