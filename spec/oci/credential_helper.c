/* credential_helper NAME TIMEOUT_MS [cancel]: prints the error's name and words, or what the helper said.  cancel: as
 * soon as the helper has written to the FIFO $HOME/told. */
#include "oci/credential_helper.h"

#include "base/thread.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static atomic_bool cancelled;

static void *cancel_later(void *arg)
{
	char byte;
	if (read(*(int *)arg, &byte, 1) == 1)
		atomic_store(&cancelled, true);
	return NULL;
}

int main(int argc, char **argv)
{
	if (argc < 3)
		return 2;
	char path[4096];
	int told = -1;
	pthread_t thread;
	struct sm_error err = { 0 };
	struct sm_buf said;
	snprintf(path, sizeof path, "%s/told", getenv("HOME"));
	sm_buf_init(&said, SM_OCI_CREDENTIAL_HELPER_MAX_BYTES);
	if (argc > 3 && (mkfifo(path, 0600) < 0 || (told = open(path, O_RDWR | O_CLOEXEC)) < 0 ||
	                 sm_thread_start(&thread, "cancel", cancel_later, &told) < 0))
		return 2;
	int code = sm_oci_credential_helper_get(argv[1], "registry.example", atoi(argv[2]), &cancelled, &said, &err);
	/* A helper that never told must not keep the thread. */
	if (argc > 3 && (write(told, "", 1) != 1 || pthread_join(thread, NULL)))
		return 2;
	if (code < 0)
		printf("%s %s\n", sm_error_name(err.code), err.message);
	else
		printf("%d %s\n", code, sm_buf_str(&said));
	sm_buf_done(&said);
	return 0;
}
