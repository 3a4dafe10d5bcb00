#include "oci/http.h"

#include "oci/http_transfer.h"
#include "oci/retry.h"

#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#define STALL_S       60u
#define FLAG_LOOKS_MS 500 /* without a descriptor that tells of a cancel */

struct sm_oci_http {
	struct sm_oci_curl_library lib;
	CURLM *multi;
	const atomic_bool *cancel;
	int cancel_fd;
	unsigned stall_s;
	unsigned retries;
	char *ca_file;
	struct sm_oci_http_transfer *first;
};

int sm_oci_http_new(const struct sm_oci_source_options *options, struct sm_oci_http **ret, struct sm_error *err)
{
	struct sm_oci_http *http = calloc(1, sizeof *http);
	if (!http)
		return sm_error_sys(err, ENOMEM, "libcurl");
	int code = sm_oci_curl_library_load(&http->lib, err);
	if (code == 0 && http->lib.global_init(CURL_GLOBAL_DEFAULT))
		code = sm_error_set(err, ENOMEM, "libcurl cannot be initialised");
	if (code < 0) {
		free(http);
		return code;
	}
	http->multi = http->lib.multi_init();
	http->cancel = options->cancel;
	http->cancel_fd = options->cancel ? options->cancel_fd : -1;
	http->stall_s = options->stall_ms ? (options->stall_ms + 999) / 1000 : STALL_S;
	http->retries = options->retries;
	http->ca_file = options->ca_file ? strdup(options->ca_file) : NULL;
	if (!http->multi || (options->ca_file && !http->ca_file)) {
		sm_oci_http_free(http);
		return sm_error_sys(err, ENOMEM, "libcurl");
	}
	*ret = http;
	return 0;
}

void sm_oci_http_free(struct sm_oci_http *http)
{
	if (!http)
		return;
	http->lib.multi_cleanup(http->multi);
	http->lib.global_cleanup();
	free(http->ca_file);
	free(http);
}

int sm_oci_http_start(struct sm_oci_http *http, const struct sm_oci_http_request *request,
                      struct sm_oci_http_transfer **ret, struct sm_error *err)
{
	struct sm_oci_http_transfer *transfer;
	int code = sm_oci_http_transfer_new(&http->lib, request, http->stall_s, http->ca_file, &transfer, err);
	if (code < 0)
		return code;
	if (http->lib.multi_add_handle(http->multi, transfer->curl)) {
		sm_oci_http_transfer_free(transfer);
		return sm_error_set(err, EIO, "GET %.*s: libcurl refuses it", sm_oci_hop_shown(request->url),
		                    request->url);
	}
	transfer->http = http;
	transfer->next = http->first;
	http->first = transfer;
	*ret = transfer;
	return 0;
}

/* A transfer has come to an end, or to the place where it goes on. */
static void settle(struct sm_oci_http_transfer *transfer)
{
	const struct sm_oci_curl_library *lib = transfer->lib;
	CURLM *multi = transfer->http->multi;
	transfer->ended = !sm_oci_http_transfer_is_moved(transfer);
	if (transfer->ended)
		return;
	lib->multi_remove_handle(multi, transfer->curl);
	sm_oci_http_transfer_move(transfer);
	if (!transfer->refused.code && lib->multi_add_handle(multi, transfer->curl))
		sm_error_set(&transfer->refused, EIO, "libcurl refuses a redirect");
	transfer->ended = transfer->refused.code != 0;
}

/* Take note of what has ended. */
static int perform(struct sm_oci_http *http, struct sm_error *err)
{
	const struct sm_oci_curl_library *lib = &http->lib;
	int running, left;
	CURLMcode code = lib->multi_perform(http->multi, &running);
	for (CURLMsg *message; (message = lib->multi_info_read(http->multi, &left));) {
		struct sm_oci_http_transfer *transfer = NULL;
		lib->easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, &transfer);
		transfer->result = message->data.result;
		settle(transfer);
	}
	if (code)
		return sm_error_set(err, EIO, "libcurl: %s", lib->multi_strerror(code));
	if (http->cancel && atomic_load(http->cancel))
		return sm_error_sys(err, ECANCELED, "transfers");
	return 0;
}

/* Something has happened, or time is up. */
static int await(struct sm_oci_http *http, int wake_fd, int timeout_ms, struct sm_error *err)
{
	struct curl_waitfd fds[2];
	unsigned count = 0;
	if (wake_fd >= 0)
		fds[count++] = (struct curl_waitfd){ .fd = wake_fd, .events = CURL_WAIT_POLLIN };
	if (http->cancel_fd >= 0)
		fds[count++] = (struct curl_waitfd){ .fd = http->cancel_fd, .events = CURL_WAIT_POLLIN };
	int limit = http->cancel && http->cancel_fd < 0 ? FLAG_LOOKS_MS : INT_MAX;
	CURLMcode code = http->lib.multi_poll(http->multi, fds, count,
	                                      timeout_ms >= 0 && timeout_ms < limit ? timeout_ms : limit, NULL);
	return code ? sm_error_set(err, EIO, "libcurl: %s", http->lib.multi_strerror(code)) : 0;
}

static void *ended_owner(const struct sm_oci_http *http)
{
	for (const struct sm_oci_http_transfer *transfer = http->first; transfer; transfer = transfer->next)
		if (transfer->ended && transfer->request.owner)
			return transfer->request.owner;
	return NULL;
}

int sm_oci_http_run(struct sm_oci_http *http, int wake_fd, int timeout_ms, void **ret_owner, struct sm_error *err)
{
	int code = perform(http, err);
	*ret_owner = ended_owner(http);
	if (code < 0 || *ret_owner)
		return code;
	if ((code = await(http, wake_fd, timeout_ms, err)) < 0 || (code = perform(http, err)) < 0)
		return code;
	*ret_owner = ended_owner(http);
	return 0;
}

int sm_oci_http_finish(struct sm_oci_http_transfer *transfer, struct sm_oci_http_response *ret, struct sm_error *err)
{
	struct sm_oci_http_transfer **link = &transfer->http->first;
	while (*link != transfer)
		link = &(*link)->next;
	*link = transfer->next;
	int code = sm_oci_http_transfer_end(transfer, ret, err);
	transfer->lib->multi_remove_handle(transfer->http->multi, transfer->curl);
	sm_oci_http_transfer_free(transfer);
	return code;
}

/* Until the transfer ends, or the time comes. */
static int run_until(struct sm_oci_http *http, const struct sm_oci_http_transfer *transfer, int64_t until_ms,
                     struct sm_error *err)
{
	for (;;) {
		int code = perform(http, err);
		int64_t left = until_ms - sm_oci_retry_now_ms();
		if (code < 0 || (transfer && transfer->ended) || left <= 0)
			return code;
		if ((code = await(http, -1, left < INT_MAX ? (int)left : INT_MAX, err)) < 0)
			return code;
	}
}

int sm_oci_http_get(struct sm_oci_http *http, const struct sm_oci_http_request *request,
                    struct sm_oci_http_response *ret, struct sm_error *err)
{
	for (unsigned failures = 0;;) {
		struct sm_oci_http_transfer *transfer;
		struct sm_error own = { 0 };
		int code = sm_oci_http_start(http, request, &transfer, err);
		if (code < 0)
			return code;
		if ((code = run_until(http, transfer, INT64_MAX, err)) < 0) {
			sm_oci_http_finish(transfer, ret, NULL);
			return code;
		}
		bool begun = transfer->begun;
		code = sm_oci_http_finish(transfer, ret, &own);
		if (!ret->transient || request->once || failures++ >= http->retries || (begun && !request->restart)) {
			if (own.code)
				sm_error_set(err, own.code, "%s", own.message);
			return code;
		}
		int64_t delay_ms = sm_oci_retry_delay_ms(failures, ret->retry_after_s);
		if ((begun && (code = request->restart(request->arg)) < 0) ||
		    (code = run_until(http, NULL, sm_oci_retry_now_ms() + delay_ms, err)) < 0)
			return code;
	}
}

void sm_oci_http_response_done(struct sm_oci_http_response *response)
{
	sm_buf_done(&response->error_body);
	memset(response, 0, sizeof *response);
}

void sm_oci_http_escape(struct sm_buf *out, const char *text)
{
	for (; *text; text++) {
		unsigned char c = (unsigned char)*text;
		if (isalnum(c) || strchr("-._~", c))
			sm_buf_append(out, text, 1);
		else
			sm_buf_printf(out, "%%%02X", c);
	}
}
