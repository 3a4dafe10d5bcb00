#include "lua/pull_progress.h"

#include "base/fd.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct sm_lua_pull_layer {
	struct sm_oci_progress event; /* without the digest's memory */
	char digest[SM_OCI_DIGEST_SIZE];
	bool fresh;
};

int sm_lua_pull_progress_init(struct sm_lua_pull_progress *progress)
{
	pthread_mutex_init(&progress->lock, NULL);
	progress->fd = sm_fd_event();
	return progress->fd < 0 ? progress->fd : 0;
}

void sm_lua_pull_progress_done(struct sm_lua_pull_progress *progress)
{
	sm_fd_close(&progress->fd);
	free(progress->layers);
	pthread_mutex_destroy(&progress->lock);
}

/* Out of memory, it goes untold. */
static struct sm_lua_pull_layer *layer_at(struct sm_lua_pull_progress *progress, size_t index)
{
	if (index >= progress->count) {
		struct sm_lua_pull_layer *more = realloc(progress->layers, (index + 1) * sizeof *more);
		if (!more)
			return NULL;
		memset(more + progress->count, 0, (index + 1 - progress->count) * sizeof *more);
		progress->layers = more;
		progress->count = index + 1;
	}
	return &progress->layers[index];
}

void sm_lua_pull_progress_tell(void *arg, const struct sm_oci_progress *event)
{
	struct sm_lua_pull_progress *progress = arg;
	pthread_mutex_lock(&progress->lock);
	struct sm_lua_pull_layer *layer = layer_at(progress, event->index);
	if (layer) {
		layer->event = *event;
		snprintf(layer->digest, sizeof layer->digest, "%s", event->digest);
		layer->fresh = true;
	}
	pthread_mutex_unlock(&progress->lock);
	sm_fd_event_raise(progress->fd);
}

/* Copies one out: what pushes may raise, and must hold no lock. */
static bool take(struct sm_lua_pull_progress *progress, size_t *index, struct sm_lua_pull_layer *ret)
{
	bool found = false;
	pthread_mutex_lock(&progress->lock);
	for (; *index < progress->count && !found; ++*index) {
		struct sm_lua_pull_layer *layer = &progress->layers[*index];
		found = layer->fresh;
		if (found)
			*ret = *layer;
		layer->fresh = false;
	}
	pthread_mutex_unlock(&progress->lock);
	return found;
}

int sm_lua_pull_progress_push(lua_State *L, struct sm_lua_pull_progress *progress)
{
	static const char *const states[] = {
		[SM_OCI_PROGRESS_WAITING] = "waiting",   [SM_OCI_PROGRESS_FETCHING] = "fetching",
		[SM_OCI_PROGRESS_RETRYING] = "retrying", [SM_OCI_PROGRESS_DONE] = "done",
		[SM_OCI_PROGRESS_REUSED] = "reused",     [SM_OCI_PROGRESS_FAILED] = "failed",
	};
	struct sm_lua_pull_layer layer;
	size_t index = 0;
	lua_Integer count = 0;
	sm_fd_event_take(progress->fd);
	lua_newtable(L);
	while (take(progress, &index, &layer)) {
		lua_createtable(L, 0, 5);
		lua_pushinteger(L, (lua_Integer)index);
		lua_setfield(L, -2, "index");
		lua_pushstring(L, layer.digest);
		lua_setfield(L, -2, "digest");
		lua_pushstring(L, states[layer.event.state]);
		lua_setfield(L, -2, "state");
		lua_pushinteger(L, (lua_Integer)layer.event.done);
		lua_setfield(L, -2, "done");
		lua_pushinteger(L, (lua_Integer)layer.event.total);
		lua_setfield(L, -2, "total");
		lua_rawseti(L, -2, ++count);
	}
	return 1;
}
