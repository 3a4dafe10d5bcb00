/* Which mutant there is. */
#include "mutants.h"

static const struct {
	const char *name, *groups;
} rows[] = {
#define MUTANT_ROW(id, name, groups) { name, groups },
	MUTANTS(MUTANT_ROW)
#undef MUTANT_ROW
};

static enum mutant choice;

bool mutants_choose(const char *name)
{
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
		if (!strcmp(rows[i].name, name)) {
			choice = (enum mutant)(i + 1);
			return true;
		}
	return false;
}

void mutants_begin(void)
{
	mutant = choice;
}

void mutants_list(void)
{
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
		printf("%s %s\n", rows[i].name, rows[i].groups);
}
