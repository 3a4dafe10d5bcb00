/* check NAME: one check of the ground floor's data, files and descriptors that Lua cannot make itself. */
#include "check.h"
#include "base/buf.h"
#include "base/codec.h"
#include "base/fd.h"
#include "base/json.h"
#include "base/path.h"
#include "base/sha256.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

static int failing_caller(struct sm_error *err)
{
	sm_error_sys(err, -ENOSPC, "open layer %s", "sha256:ab");
	return sm_error_context(err, "baking %s", "nginx:1.27");
}

static void check_error(void)
{
	struct sm_error err = { 0 };
	CHECK(failing_caller(&err) == -ENOSPC);
	CHECK(err.code == ENOSPC);
	CHECK(!strcmp(err.message, "baking nginx:1.27: open layer sha256:ab: No space left on device"));
	CHECK(sm_error_set(NULL, EINVAL, "nobody listens") == -EINVAL);
	CHECK(sm_error_set(&err, 0, "a failure is never 0") < 0);
	char *text = malloc(3000);
	CHECK(text);
	memset(text, 'x', 2999);
	text[2999] = 0;
	sm_error_set(&err, EIO, "%s", text);
	CHECK(strlen(err.message) == SM_ERROR_MESSAGE_MAX - 1);
	sm_error_context(&err, "%s", "reading");
	CHECK(strlen(err.message) == SM_ERROR_MESSAGE_MAX - 1 && !strncmp(err.message, "reading: xxx", 12));
	free(text);
	CHECK(!strcmp(sm_error_name(-ENOENT), "ENOENT") && !strcmp(sm_error_name(99999), "EUNKNOWN"));
}

static void check_buf(void)
{
	SM_BUF_CLEANUP struct sm_buf buf;
	sm_buf_init(&buf, 10);
	CHECK(!sm_buf_append_str(&buf, "0123"));
	CHECK(!sm_buf_printf(&buf, "%d", 456789));
	CHECK(!strcmp(sm_buf_str(&buf), "0123456789"));
	CHECK(sm_buf_append(&buf, "x", 1) == -E2BIG && sm_buf_failed(&buf));
	CHECK(!sm_buf_str(&buf));
	CHECK(sm_buf_append(&buf, "", 0) == -E2BIG);
	sm_buf_clear(&buf);
	CHECK(!sm_buf_append_zero(&buf, 3) && buf.len == 3 && !memcmp(buf.data, "\0\0\0", 3));
	CHECK(sm_buf_printf(&buf, "%s", "12345678") == -E2BIG && buf.len == 3);
	sm_buf_clear(&buf);
	CHECK(!sm_buf_append_str(&buf, "abcdef"));
	sm_buf_consume(&buf, 2);
	CHECK(!strcmp(sm_buf_str(&buf), "cdef"));
	CHECK(!sm_buf_extend(&buf, SIZE_MAX));
}

static void check_codec(void)
{
	SM_BUF_CLEANUP struct sm_buf buf;
	sm_buf_init(&buf, 1000);
	size_t outer = sm_record_begin(&buf, SM_TAG('O', 'U', 'T', 'R'), 3);
	sm_put_u8(&buf, 0x12);
	sm_put_u16(&buf, 0x3456);
	sm_put_u32(&buf, 0x789abcde);
	sm_put_u64(&buf, 0x0123456789abcdef);
	sm_put_str(&buf, "text");
	sm_put_bytes(&buf, "\1\2\3", 3);
	size_t inner = sm_record_begin(&buf, SM_TAG('I', 'N', 'N', 'R'), 1);
	sm_record_end(&buf, inner);
	sm_record_end(&buf, outer);
	CHECK(!sm_buf_failed(&buf));

	struct sm_reader reader, record, nested;
	struct sm_error err;
	sm_reader_init(&reader, buf.data, buf.len);
	CHECK(sm_record_peek(&reader) == SM_TAG('O', 'U', 'T', 'R'));
	CHECK(!sm_record_open(&reader, SM_TAG('O', 'U', 'T', 'R'), 3, "test", &record, &err));
	CHECK(sm_record_peek(&reader) == 0);
	CHECK(sm_get_u8(&record) == 0x12 && sm_get_u16(&record) == 0x3456 && sm_get_u32(&record) == 0x789abcde);
	CHECK(sm_get_u64(&record) == 0x0123456789abcdef);
	char text[5], exact[3];
	sm_get_str(&record, text, sizeof text);
	sm_get_exact(&record, exact, 3);
	CHECK(!strcmp(text, "text") && !memcmp(exact, "\1\2\3", 3));
	CHECK(sm_record_close(&record, "test", &err) == -EBADMSG); /* the nested record is left over */
	CHECK(!sm_record_open(&record, SM_TAG('I', 'N', 'N', 'R'), 1, "test", &nested, &err));
	CHECK(!sm_record_close(&nested, "test", &err) && !sm_record_close(&record, "test", &err));
	CHECK(sm_get_u8(&record) == 0 && record.failed);

	/* Every byte of a record is covered by a check, and so is its length. */
	for (size_t i = 0; i < buf.len; i++) {
		buf.data[i] ^= 1;
		sm_reader_init(&reader, buf.data, buf.len);
		CHECK(sm_record_open(&reader, SM_TAG('O', 'U', 'T', 'R'), 3, "test", &record, &err) == -EBADMSG);
		buf.data[i] ^= 1;
		sm_reader_init(&reader, buf.data, i);
		CHECK(sm_record_open(&reader, SM_TAG('O', 'U', 'T', 'R'), 3, "test", &record, &err) == -EBADMSG);
		CHECK(i == 0 || sm_record_peek(&reader) != 0);
	}
	/* A string that does not fit, or that holds a NUL, fails. */
	sm_reader_init(&reader, "\4\0\0\0text", 8);
	sm_get_str(&reader, text, 4);
	CHECK(reader.failed && !text[0]);
	sm_reader_init(&reader, "\2\0\0\0a\0", 6);
	sm_get_str(&reader, text, sizeof text);
	CHECK(reader.failed);
	/* A length that would wrap. */
	sm_reader_init(&reader, "\377\377\377\377x", 5);
	size_t len;
	CHECK(!sm_get_bytes(&reader, &len) && len == 0 && reader.failed);
}

static void check_fd(void)
{
	int pair[2], fds[SM_FD_PASS_MAX];
	CHECK(!socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair));
	int before = sm_fd_dup(0); /* the lowest free number: after the checks it is free again */
	CHECK(before >= 0);
	close(before);

	int passed[2] = { sm_fd_event(), sm_fd_event() };
	CHECK(sm_fd_send(pair[0], "hi", 2, passed, 2) == 2);
	sm_fd_event_raise(passed[1]);
	char data[8];
	size_t count;
	CHECK(sm_fd_recv(pair[1], data, sizeof data, fds, &count) == 2 && count == 2 && !memcmp(data, "hi", 2));
	CHECK(sm_fd_event_take(fds[0]) == 0 && sm_fd_event_take(fds[1]) == 1);
	CHECK(fcntl(fds[0], F_GETFD) & FD_CLOEXEC);
	sm_fd_close(&fds[0]);
	sm_fd_close(&fds[1]);
	/* A message that is too long is refused, and its descriptors are not lost. */
	CHECK(sm_fd_send(pair[0], "0123456789", 10, passed, 2) == 10);
	CHECK(sm_fd_recv(pair[1], data, sizeof data, fds, &count) == -EMSGSIZE && count == 0);
	sm_fd_close(&passed[0]);
	sm_fd_close(&passed[1]);
	CHECK(passed[0] == -1);

	CHECK(sm_fd_wait(pair[0], POLLIN, 0) == 0);
	sm_fd_close(&pair[1]);
	CHECK(sm_fd_wait(pair[0], POLLIN, -1) & POLLIN);
	/* No SIGPIPE: this process would end here. */
	CHECK(sm_fd_write_full(pair[0], "x", 1) == -EPIPE);
	CHECK(sm_fd_read_full(pair[0], data, 1) == -ENODATA);
	CHECK(sm_fd_wait(before, POLLIN, 0) == -EBADF);
	int after = sm_fd_dup(0);
	CHECK(after == pair[1] || after <= before);
	close(after);
	sm_fd_close(&pair[0]);
}

static void check_path(const char *folder)
{
	char path[PATH_MAX], name[PATH_MAX];
	struct sm_error err = { 0 };
	CHECK(!sm_path_format(path, &err, "%s/a/b//c/", folder));
	CHECK(!sm_path_make_dirs(path, 0755, &err) && !sm_path_make_dirs(path, 0755, &err));

	struct sm_path_new file;
	CHECK(!sm_path_format(name, &err, "%s/a/file", folder));
	umask(022);
	CHECK(!sm_path_new_begin(&file, name, 0666, &err));
	CHECK(!sm_fd_write_full(file.fd, "content", 7));
	CHECK(access(name, F_OK) && !access(file.temporary, F_OK));
	CHECK(!sm_path_new_commit(&file, &err));
	sm_path_new_discard(&file);
	struct stat status;
	CHECK(!stat(name, &status) && (status.st_mode & 07777) == 0644 && access(file.temporary, F_OK));
	char *data;
	size_t len;
	CHECK(!sm_path_read(name, 7, &data, &len, &err) && len == 7 && !strcmp(data, "content"));
	free(data);
	CHECK(sm_path_read(name, 6, &data, &len, &err) == -EFBIG && !data && strstr(err.message, name));
	CHECK(!sm_path_read("/proc/self/status", 1 << 20, &data, &len, &err) && len > 100 && strlen(data) == len);
	free(data);
	CHECK(sm_path_read(folder, 100, &data, &len, &err) == -EISDIR);
	CHECK(sm_path_make_dirs(name, 0755, &err) == -ENOTDIR);

	CHECK(!sm_path_new_begin(&file, name, 0600, &err));
	sm_path_new_discard(&file);
	CHECK(access(file.temporary, F_OK) && !access(name, F_OK));

	/* The tree goes, what a link in it points to stays. */
	char outside[PATH_MAX], linked[PATH_MAX];
	CHECK(!sm_path_format(outside, &err, "%s/outside", folder) && !sm_path_make_dirs(outside, 0755, &err));
	CHECK(!sm_path_format(linked, &err, "%s/a/link", folder) && !symlink(outside, linked));
	CHECK(!sm_path_format(path, &err, "%s/a", folder));
	CHECK(!sm_path_remove_tree(path, &err) && access(path, F_OK) && !access(outside, F_OK));
	CHECK(!sm_path_remove_tree(path, &err));

	setenv("XDG_DATA_HOME", "relative", 1);
	setenv("HOME", "/home/tester", 1);
	CHECK(!sm_path_data_home(path, &err) && !strcmp(path, "/home/tester/.local/share/supermachine"));
	setenv("XDG_DATA_HOME", "/data", 1);
	CHECK(!sm_path_data_home(path, &err) && !strcmp(path, "/data/supermachine"));
	unsetenv("XDG_CACHE_HOME");
	unsetenv("HOME");
	CHECK(sm_path_cache_home(path, &err) == -ENOENT);
	memset(name, 'x', PATH_MAX - 1);
	name[PATH_MAX - 1] = 0;
	CHECK(sm_path_format(path, &err, "/%s", name) == -ENAMETOOLONG && !path[0]);
}

static void check_json(void)
{
	static const char text[] = "{\"s\":\"v\",\"n\":9007199254740992,\"h\":1.5,\"m\":-1,\"o\":{},\"a\":[]}";
	SM_JSON_CLEANUP cJSON *root = NULL;
	struct sm_error err;
	const char *string;
	uint64_t number;
	const cJSON *value;
	CHECK(!sm_json_parse(text, strlen(text), "index.json", &root, &err));
	CHECK(!sm_json_get_string(root, "s", "index.json", &string, &err) && !strcmp(string, "v"));
	CHECK(!sm_json_get_u64(root, "n", "index.json", &number, &err) && number == UINT64_C(1) << 53);
	CHECK(sm_json_get_u64(root, "h", "index.json", &number, &err) == -EBADMSG);
	CHECK(sm_json_get_u64(root, "m", "index.json", &number, &err) == -EBADMSG);
	CHECK(sm_json_get_u64(root, "s", "index.json", &number, &err) == -EBADMSG);
	CHECK(strstr(err.message, "index.json") && strstr(err.message, "'s'"));
	CHECK(!sm_json_get_object(root, "o", "index.json", &value, &err) && value);
	CHECK(sm_json_get_array(root, "o", "index.json", &value, &err) == -EBADMSG && !value);
	CHECK(!sm_json_get_array(root, "a", "index.json", &value, &err));
	CHECK(sm_json_get_array(root, "missing", "index.json", &value, &err) == -EBADMSG);
	CHECK(!sm_json_string_or(root, "missing", "index.json", "else", &string, &err) && !strcmp(string, "else"));
	CHECK(sm_json_string_or(root, "a", "index.json", "else", &string, &err) == -EBADMSG);
	CHECK(sm_json_get_string(NULL, "s", "index.json", &string, &err) == -EBADMSG);
}

static void check_sha256(void)
{
	struct sm_sha256 *hash = sm_sha256_new();
	char hex[SM_SHA256_HEX + 1], once[SM_SHA256_HEX + 1];
	CHECK(hash);
	for (int round = 0; round < 2; round++) {
		sm_sha256_update(hash, "a", 1);
		sm_sha256_update(hash, "", 0);
		sm_sha256_update(hash, "bc", 2);
		sm_sha256_final(hash, hex);
		CHECK(!strcmp(hex, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"));
	}
	CHECK(!sm_sha256_hex("abc", 3, once) && !strcmp(hex, once));
	sm_sha256_free(hash);
	sm_sha256_free(NULL);
}

int main(int argc, char **argv)
{
	static const struct check checks[] = {
		{ "error", check_error }, { "buf", check_buf },       { "codec", check_codec }, { "fd", check_fd },
		{ "json", check_json },   { "sha256", check_sha256 }, { NULL, NULL },
	};
	if (argc == 3 && !strcmp(argv[1], "path")) {
		check_path(argv[2]);
		return 0;
	}
	return check_main(checks, argc, argv);
}
