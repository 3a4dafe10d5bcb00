#!/bin/sh
# build.sh FOLDER COUNT: make -j builds a program of COUNT files with tcc, and again after a change.  Says `ok' at the end.
set -eu
fail() { echo "build: $*"; exit 1; }
cd "$1"
count=$2

mkdir -p src include
n=0
{
	echo '#include <stdio.h>'
	while [ $n -lt "$count" ]; do
		printf 'int f%d(int);\n' $n
		printf '#include <string.h>\n#include "f%d.h"\nint f%d(int x) { char s[64]; memset(s, x, sizeof s); return s[NUMBER] + NUMBER; }\n' \
			$n $n >src/f$n.c
		printf '#define NUMBER %d\n' $((n % 64)) >include/f$n.h
		n=$((n + 1))
	done
	printf 'int main(void) { int sum = 0;\n'
	n=0
	while [ $n -lt "$count" ]; do
		printf 'sum += f%d(1);\n' $n
		n=$((n + 1))
	done
	printf 'printf("%%d\\n", sum); return 0; }\n'
} >src/main.c
cat >Makefile <<'MAKE'
SOURCES := $(wildcard src/*.c)
program: $(SOURCES:src/%.c=obj/%.o)
	tcc -o $@ $^
obj/f%.o: src/f%.c include/f%.h | obj
	tcc -Iinclude -c -o $@ $<
obj/main.o: src/main.c | obj
	tcc -c -o $@ $<
obj:
	mkdir $@
MAKE

sum=0 n=0
while [ $n -lt "$count" ]; do
	sum=$((sum + 1 + n % 64)) n=$((n + 1))
done
make -s -j3
[ "$(./program)" = $sum ] || fail "the program says $(./program) for $sum"
make -q || fail 'nothing was changed, and yet something is to be made'
# A header moves on; make goes by times to the nanosecond.
sed -i 's/NUMBER .*/NUMBER 7/' include/f0.h
! make -q || fail 'a header was changed, and nothing is to be made'
make -s -j3
[ "$(./program)" = $((sum + 7)) ] || fail "the program says $(./program) for $((sum + 7))"
make -q || fail 'made, and yet something is to be made'
rm -r obj program
make -s -j3
[ "$(./program)" = $((sum + 7)) ] || fail 'built anew it is another'
echo ok
