/* The files of a machine's identity. */
#ifndef SM_GUEST_IDENTITY_H
#define SM_GUEST_IDENTITY_H

#include "init.h"

#include <stdint.h>

#define SM_IDENTITY_TEXT 37 /* a UUID's text and its NUL */

void sm_identity_text(const uint8_t id[16], char text[SM_IDENTITY_TEXT]);

/* Once, when the file systems are there: what the first identity would otherwise wait for.  Where it cannot be done,
 * that will tell. */
void sm_identity_prepare(void);
/* /run/supermachine/id; /etc/machine-id where the image has one; a boot ID of its own.  0, or -1 with *failure set, for
 * both. */
int sm_identity_write(const uint8_t id[16], struct sm_failure *failure);
/* A file of mode 0400 in a folder that is in memory alone; it takes the place of what has its name. */
int sm_identity_write_secret(const char *path, const uint8_t *value, size_t len, struct sm_failure *failure);

#endif
