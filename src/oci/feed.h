/* Layers that are read while they come in.  A pull's thread writes, any threads read; readers wait for the bytes and,
 * at the end, for the word that the whole has the right digest. */
#ifndef SM_OCI_FEED_H
#define SM_OCI_FEED_H

#include "oci/image.h"

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct sm_oci_feed;  /* one blob */
struct sm_oci_feeds; /* those of one pull */

/* The layers stay where they are.  NULL: no memory. */
struct sm_oci_feeds *sm_oci_feeds_new(const struct sm_oci_layer *layers, size_t count);
/* After the last read. */
void sm_oci_feeds_free(struct sm_oci_feeds *feeds);
/* What is not whole by now never will be. */
void sm_oci_feeds_end(struct sm_oci_feeds *feeds);
/* feeds NULL: NULL, which all that follows takes and does nothing with. */
struct sm_oci_feed *sm_oci_feeds_find(struct sm_oci_feeds *feeds, const char *digest);

/* The blob comes into this file, of which `written` bytes are there; the descriptor is duplicated. */
int sm_oci_feed_begin(struct sm_oci_feed *feed, int fd, uint64_t written);
/* Readers hear of it in steps. */
void sm_oci_feed_advance(struct sm_oci_feed *feed, uint64_t written);
/* Before the file is emptied, to be written once more. */
void sm_oci_feed_restart(struct sm_oci_feed *feed);
/* All of it is there, and verified. */
void sm_oci_feed_complete(struct sm_oci_feed *feed, uint64_t size);
void sm_oci_feed_fail(struct sm_oci_feed *feed);

struct sm_oci_feed_reader {
	struct sm_oci_feed *feed;
	uint64_t offset;
	unsigned edition; /* of the blob's bytes: as often as they were begun anew */
};

void sm_oci_feed_reader_init(struct sm_oci_feed_reader *reader, struct sm_oci_feed *feed);
/* Blocks.  0 at the end of a whole blob; -ESTALE: what was read is void, since the blob is being fetched anew;
 * -ECANCELED: it will not come. */
ssize_t sm_oci_feed_read(void *reader, void *buffer, size_t size);
/* Blocks until it is known what was read: 0 for a whole blob's bytes, else -ESTALE or -ECANCELED. */
int sm_oci_feed_settle(struct sm_oci_feed_reader *reader);

#endif
