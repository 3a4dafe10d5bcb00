#!/bin/sh
# sqlite.sh FOLDER COUNT: a database in WAL mode, where it works, and with a rollback journal: three writers, two readers,
# then integrity_check.  Says `ok' at the end.
set -eu
fail() { echo "sqlite: $*"; exit 1; }
cd "$1"
count=$2

writer() { # DATABASE NUMBER
	n=0
	while [ $n -lt "$count" ]; do
		echo "BEGIN IMMEDIATE; INSERT INTO t VALUES ($2, $n, hex(randomblob(300))); UPDATE total SET n = n + 1; COMMIT;"
		n=$((n + 1))
	done | sqlite3 -bail -cmd '.timeout 60000' "$1"
}

# What a reader sees is of one moment: the rows and their number agree.
reader() { # DATABASE
	n=0
	while [ $n -lt "$count" ]; do
		echo 'SELECT (SELECT count(*) FROM t) = (SELECT n FROM total);'
		n=$((n + 1))
	done | sqlite3 -bail -cmd '.timeout 60000' "$1" | sort -u
}

for mode in wal delete; do
	base=$mode.db
	[ "$(sqlite3 "$base" "PRAGMA journal_mode = $mode")" = $mode ] || fail "no journal_mode $mode"
	sqlite3 "$base" 'CREATE TABLE t (w, n, x); CREATE INDEX i ON t (x); CREATE TABLE total (n); INSERT INTO total VALUES (0)'
	pids=
	for w in 1 2 3; do
		writer "$base" $w >"$mode-writer-$w" 2>&1 &
		pids="$pids $!"
	done
	for r in 1 2; do
		reader "$base" >"$mode-reader-$r" 2>&1 &
		pids="$pids $!"
	done
	for pid in $pids; do
		wait "$pid" || fail "$mode: a process: $(cat $mode-writer-* $mode-reader-*)"
	done
	for r in 1 2; do
		[ "$(cat "$mode-reader-$r")" = 1 ] || fail "$mode: a reader saw half a transaction: $(cat "$mode-reader-$r")"
	done
	[ "$(sqlite3 "$base" 'SELECT count(*), (SELECT n FROM total) FROM t')" = "$((3 * count))|$((3 * count))" ] ||
		fail "$mode: rows were lost: $(sqlite3 "$base" 'SELECT count(*) FROM t')"
	[ "$(sqlite3 "$base" 'PRAGMA integrity_check')" = ok ] || fail "$mode: integrity_check"
	sqlite3 "$base" VACUUM
	[ "$(sqlite3 "$base" 'PRAGMA integrity_check')" = ok ] || fail "$mode: integrity_check after VACUUM"
done
echo ok
