#include "agent/files.h"

#include "base/codec.h"

#include <errno.h>

#define FILE_END_BYTES 20

static int wrong_frame(unsigned type, size_t len, struct sm_error *err)
{
	return sm_error_set(err, EBADMSG, "the guest's agent sent a wrong frame: type %u, %zu bytes", type, len);
}

static int take_end(const void *payload, size_t len, uint64_t size, struct sm_agent_file *ret_file,
                    struct sm_error *err)
{
	struct sm_reader reader;
	sm_reader_init(&reader, payload, len);
	ret_file->size = sm_get_u64(&reader);
	ret_file->mode = sm_get_u32(&reader);
	ret_file->uid = sm_get_u32(&reader);
	ret_file->gid = sm_get_u32(&reader);
	if (len != FILE_END_BYTES || ret_file->size != size || (ret_file->mode & ~07777u))
		return wrong_frame(SM_AGENT_FILE_END, len, err);
	return 0;
}

int sm_agent_read_file(int fd_taken, const char *path, const struct sm_agent_wait *wait, struct sm_buf *out,
                       struct sm_agent_file *ret_file, struct sm_error *err)
{
	SM_CHANNEL_CLEANUP struct sm_channel *channel = NULL;
	SM_BUF_CLEANUP struct sm_buf body;
	sm_buf_init(&body, SM_AGENT_REQUEST_MAX);
	sm_put_str(&body, path);
	sm_put_u64(&body, out->max - out->len);
	size_t start = out->len;
	int code = sm_channel_new(fd_taken, wait, &channel, err);
	if (code == 0)
		code = sm_channel_request(channel, SM_AGENT_READ_FILE, &body, err);
	while (code == 0) {
		unsigned type;
		const void *payload;
		size_t len;
		code = sm_channel_receive(channel, &type, &payload, &len, err);
		if (code < 0)
			return code;
		if (type == SM_AGENT_FILE_END)
			return take_end(payload, len, out->len - start, ret_file, err);
		if (type != SM_AGENT_DATA)
			return wrong_frame(type, len, err);
		code = sm_buf_append(out, payload, len);
		if (code < 0)
			sm_error_sys(err, code == -E2BIG ? EFBIG : code, "read '%s'", path);
	}
	return code;
}

static int send_content(struct sm_channel *channel, const uint8_t *data, size_t len, struct sm_error *err)
{
	int code = 0;
	for (size_t done = 0; code == 0 && done < len;) {
		size_t piece = len - done < SM_AGENT_PAYLOAD_MAX ? len - done : SM_AGENT_PAYLOAD_MAX;
		code = sm_channel_send(channel, SM_AGENT_DATA, data + done, piece, err);
		done += piece;
	}
	return code == 0 ? sm_channel_send(channel, SM_AGENT_DATA_END, NULL, 0, err) : code;
}

int sm_agent_write_file(int fd_taken, const char *path, uint32_t mode, const void *data, size_t len,
                        const struct sm_agent_wait *wait, struct sm_error *err)
{
	SM_CHANNEL_CLEANUP struct sm_channel *channel = NULL;
	SM_BUF_CLEANUP struct sm_buf body;
	sm_buf_init(&body, SM_AGENT_REQUEST_MAX);
	sm_put_str(&body, path);
	sm_put_u32(&body, mode);
	int code = sm_channel_new(fd_taken, wait, &channel, err);
	if (code == 0)
		code = sm_channel_request(channel, SM_AGENT_WRITE_FILE, &body, err);
	if (code == 0)
		code = sm_channel_expect(channel, SM_AGENT_OK, err);
	if (code == 0)
		code = send_content(channel, data, len, err);
	/* After a failed send, too: the guest's reason is the better one. */
	if (code == 0 || code == -EPIPE || code == -ECONNRESET)
		code = sm_channel_expect(channel, SM_AGENT_OK, err);
	return code;
}
