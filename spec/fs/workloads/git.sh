#!/bin/sh
# git.sh FOLDER COUNT: a repository's life: commits, branches, a merge, a clone, status, fsck, gc.  Says `ok' at the end.
set -eu
fail() { echo "git: $*"; exit 1; }
cd "$1"
count=$2
export HOME="$PWD" GIT_CONFIG_NOSYSTEM=1 GIT_AUTHOR_DATE='1700000000 +0000' GIT_COMMITTER_DATE='1700000000 +0000'
git config --global user.name spec
git config --global user.email spec@localhost
git config --global init.defaultBranch main
if [ "$count" -ge 100 ]; then # every object and reference
	git config --global core.fsync all
fi
git config --global gc.auto 0

git init -q repository
cd repository
n=0
while [ $n -lt "$count" ]; do
	mkdir -p "folder-$((n % 10))"
	echo "content of $n" >"folder-$((n % 10))/file-$n"
	n=$((n + 1))
done
ln -s folder-0/file-0 link
printf '#!/bin/sh\n' >run
chmod 755 run
git add .
git commit -q -m first
[ -z "$(git status --porcelain)" ] || fail "status after a commit: $(git status --porcelain)"

git checkout -q -b topic
echo changed >>folder-1/file-1
git mv folder-2 moved
git commit -q -a -m second
git checkout -q main
{ [ -e folder-2/file-2 ] && [ ! -e moved ]; } || fail 'checkout left a branch behind'
echo other >>folder-3/file-3
git commit -q -a -m third
git merge -q -m merge topic
{ grep -q changed folder-1/file-1 && grep -q other folder-3/file-3 && [ -e moved/file-2 ]; } || fail 'the merge'
chmod 644 run
[ "$(git status --porcelain)" = ' M run' ] || fail "status of a mode: $(git status --porcelain)"
git checkout -q run

cd ..
git clone -q --no-hardlinks repository clone
git clone -q repository linked
for name in clone linked; do
	diff -r --exclude=.git repository "$name" || fail "$name differs"
	[ "$(git -C "$name" rev-parse HEAD)" = "$(git -C repository rev-parse HEAD)" ] || fail "$name is elsewhere"
done
cd repository
git gc -q --prune=now
git fsck --full --strict || fail fsck
[ "$(git count-objects)" = '0 objects, 0 kilobytes' ] || fail "gc left $(git count-objects)"
[ -z "$(git status --porcelain)" ] || fail "status after gc: $(git status --porcelain)"
git -C ../clone pull -q
git -C ../clone fsck --full
echo ok
