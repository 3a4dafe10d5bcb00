/* An interrupt line, as a device sees it: something that takes edges. */
#ifndef SM_BASE_LINE_H
#define SM_BASE_LINE_H

#include <stddef.h>

/* raise gives one edge, from any thread; two on the same line do not overlap, which is the device's lock's work. */
struct sm_line {
	void (*raise)(void *arg, unsigned irq); /* NULL: nothing is connected */
	void *arg;
	unsigned irq;
};

static inline void sm_line_raise(const struct sm_line *line)
{
	if (line->raise != NULL)
		line->raise(line->arg, line->irq);
}

#endif
