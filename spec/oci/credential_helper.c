/* credential_helper NAME TIMEOUT_MS [cancel]: prints the error's name and words, or what the helper said.  cancel: as
 * soon as it has said where it is, in $HOME/pid. */
#include "oci/credential_helper.h"

#include "base/thread.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static atomic_bool cancelled;

static void *cancel_later(void *arg)
{
	const char *path = arg;
	while (access(path, R_OK) < 0)
		usleep(1000);
	atomic_store(&cancelled, true);
	return NULL;
}

int main(int argc, char **argv)
{
	if (argc < 3)
		return 2;
	char path[4096];
	pthread_t thread;
	struct sm_error err = { 0 };
	struct sm_buf said;
	snprintf(path, sizeof path, "%s/pid", getenv("HOME"));
	sm_buf_init(&said, SM_OCI_CREDENTIAL_HELPER_MAX_BYTES);
	if (argc > 3 && sm_thread_start(&thread, "cancel", cancel_later, path) < 0)
		return 2;
	int code = sm_oci_credential_helper_get(argv[1], "registry.example", atoi(argv[2]), &cancelled, &said, &err);
	if (argc > 3)
		pthread_join(thread, NULL);
	if (code < 0)
		printf("%s %s\n", sm_error_name(err.code), err.message);
	else
		printf("%d %s\n", code, sm_buf_str(&said));
	sm_buf_done(&said);
	return 0;
}
