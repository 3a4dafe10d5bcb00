/* What the programs of checks share.  NAME: one check.  Exit 0, or 1 with what was wrong. */
#ifndef SM_SPEC_CHECK_H
#define SM_SPEC_CHECK_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHECK(condition) \
	do { \
		if (!(condition)) { \
			fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition); \
			exit(1); \
		} \
	} while (0)

struct check {
	const char *name;
	void (*run)(void);
};

/* What main does; the last row has no name. */
static inline int check_main(const struct check *checks, int argc, char **argv)
{
	for (; argc == 2 && checks->name; checks++)
		if (!strcmp(argv[1], checks->name)) {
			checks->run();
			return 0;
		}
	fprintf(stderr, "usage: %s NAME\n", argv[0]);
	return 2;
}

#endif
