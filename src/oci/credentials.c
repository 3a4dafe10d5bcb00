#include "oci/credentials.h"

#include "base/json.h"
#include "base/path.h"
#include "oci/credential_helper.h"

#include <errno.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#define FILE_MAX_BYTES (1u << 20)
#define KEY_SIZE       600 /* HOST/REPOSITORY */
#define HUB            "docker.io"

struct lookup {
	const char *host, *repository;
	const atomic_bool *cancel;
	struct sm_oci_credentials *found;
};

/* Docker's registry has several names, and its old key is a URL with a path that means nothing. */
static void normalize(const char *key, char out[KEY_SIZE])
{
	const char *host = key;
	bool url = false;
	for (int i = 0; i < 2; i++) {
		const char *scheme = i ? "http://" : "https://";
		if (!strncasecmp(key, scheme, strlen(scheme))) {
			host = key + strlen(scheme);
			url = true;
		}
	}
	size_t len = strcspn(host, "/");
	const char *rest = url ? "" : host + len;
	static const char *const hubs[] = { "index.docker.io", "registry-1.docker.io" };
	for (size_t i = 0; i < sizeof hubs / sizeof hubs[0]; i++)
		if (len == strlen(hubs[i]) && !strncasecmp(host, hubs[i], len)) {
			host = HUB;
			len = strlen(HUB);
		}
	/* What does not fit is nobody's name. */
	if (snprintf(out, KEY_SIZE, "%.*s%s", (int)len, host, rest) >= KEY_SIZE)
		out[0] = 0;
}

static const cJSON *find_key(const cJSON *object, const char *wanted)
{
	char key[KEY_SIZE];
	const cJSON *item;
	cJSON_ArrayForEach(item, object)
	{
		normalize(item->string, key);
		if (!strcasecmp(key, wanted))
			return item;
	}
	return NULL;
}

/* 1, with both taken over, or an error; "<token>" is how helpers name a token for the token server. */
static int take(struct sm_oci_credentials *found, const char *username, const char *password, struct sm_error *err)
{
	bool token = !strcmp(username, "<token>");
	char **secret = token ? &found->identity_token : &found->password;
	*secret = strdup(password);
	found->username = token ? NULL : strdup(username);
	if (!*secret || (!token && !found->username))
		return sm_error_sys(err, ENOMEM, "credentials");
	return 1;
}

static int ask_helper(struct lookup *lookup, const char *helper, const char *file, struct sm_error *err)
{
	const char *server = strcmp(lookup->host, HUB) ? lookup->host : "https://index.docker.io/v1/";
	const char *username, *secret;
	char what[160];
	struct sm_buf reply;
	SM_JSON_CLEANUP cJSON *root = NULL;
	sm_buf_init(&reply, SM_OCI_CREDENTIAL_HELPER_MAX_BYTES);
	snprintf(what, sizeof what, "credential helper docker-credential-%.100s", helper);
	int code = sm_oci_credential_helper_get(helper, server, SM_OCI_CREDENTIAL_HELPER_TIMEOUT_MS, lookup->cancel,
	                                        &reply, err);
	if (code > 0 && (code = sm_json_parse((const char *)reply.data, reply.len, what, &root, err)) == 0 &&
	    (code = sm_json_get_string(root, "Username", what, &username, err)) == 0 &&
	    (code = sm_json_get_string(root, "Secret", what, &secret, err)) == 0 && *secret)
		code = take(lookup->found, username, secret, err);
	if (code > 0)
		snprintf(lookup->found->from, sizeof lookup->found->from, "%s", what);
	else if (code < 0)
		sm_error_context(err, "%s", file);
	if (reply.data)
		explicit_bzero(reply.data, reply.cap);
	sm_buf_done(&reply);
	return code;
}

/* base64("name:password"), as docker writes it: it pads the password with NULs at times. */
static int take_auth(struct lookup *lookup, const char *auth, const char *what, struct sm_error *err)
{
	size_t len = strlen(auth);
	char *plain = calloc(1, len + 4);
	if (!plain)
		return sm_error_sys(err, ENOMEM, "%s", what);
	int got = len % 4 || len > FILE_MAX_BYTES
	              ? -1
	              : EVP_DecodeBlock((unsigned char *)plain, (const void *)auth, (int)len);
	/* What the padding stands for is counted too. */
	for (size_t i = len; got > 0 && i > 0 && i > len - 2 && auth[i - 1] == '='; i--)
		plain[--got] = 0;
	char *colon = got > 0 ? memchr(plain, ':', (size_t)got) : NULL;
	int code;
	if (!colon || memchr(plain, 0, (size_t)(colon - plain))) {
		code = sm_error_set(err, EBADMSG, "%s: 'auth' is not base64 of NAME:PASSWORD", what);
	} else {
		*colon = 0;
		code = take(lookup->found, plain, colon + 1, err);
	}
	explicit_bzero(plain, len + 4);
	free(plain);
	return code;
}

static int read_entry(struct lookup *lookup, const cJSON *entry, const char *file, struct sm_error *err)
{
	const char *auth, *username, *password, *token, *registry_token;
	char what[KEY_SIZE];
	snprintf(what, sizeof what, "%.300s: auths[\"%.200s\"]", file, entry->string);
	if (!cJSON_IsObject(entry))
		return sm_error_set(err, EBADMSG, "%s is not an object", what);
	int code = sm_json_string_or(entry, "auth", what, "", &auth, err);
	if (code < 0 || (code = sm_json_string_or(entry, "username", what, "", &username, err)) < 0 ||
	    (code = sm_json_string_or(entry, "password", what, "", &password, err)) < 0 ||
	    (code = sm_json_string_or(entry, "identitytoken", what, "", &token, err)) < 0 ||
	    (code = sm_json_string_or(entry, "registrytoken", what, "", &registry_token, err)) < 0)
		return code;
	snprintf(lookup->found->from, sizeof lookup->found->from, "%s", file);
	if (*registry_token) {
		lookup->found->registry_token = strdup(registry_token);
		return lookup->found->registry_token ? 1 : sm_error_sys(err, ENOMEM, "credentials");
	}
	if (*token)
		return take(lookup->found, "<token>", token, err);
	if (*auth)
		return take_auth(lookup, auth, what, err);
	return *username ? take(lookup->found, username, password, err) : 0;
}

/* HOST/a/b/c, HOST/a/b, HOST/a, HOST */
static int read_auths(struct lookup *lookup, const cJSON *auths, const char *file, struct sm_error *err)
{
	char wanted[KEY_SIZE];
	int code = 0;
	snprintf(wanted, sizeof wanted, "%s/%s", lookup->host, lookup->repository);
	while (!code) {
		const cJSON *entry = find_key(auths, wanted);
		if (entry)
			code = read_entry(lookup, entry, file, err);
		char *slash = strrchr(wanted, '/');
		if (!slash)
			break;
		*slash = 0;
	}
	return code;
}

static int optional_object(const cJSON *root, const char *name, const char *file, const cJSON **ret,
                           struct sm_error *err)
{
	*ret = NULL;
	return cJSON_GetObjectItemCaseSensitive(root, name) ? sm_json_get_object(root, name, file, ret, err) : 0;
}

static int read_document(struct lookup *lookup, const cJSON *root, const char *file, struct sm_error *err)
{
	const cJSON *helpers, *auths;
	const char *store;
	if (!cJSON_IsObject(root))
		return sm_error_set(err, EBADMSG, "%s: not an object", file);
	int code = optional_object(root, "credHelpers", file, &helpers, err);
	if (code < 0 || (code = optional_object(root, "auths", file, &auths, err)) < 0 ||
	    (code = sm_json_string_or(root, "credsStore", file, "", &store, err)) < 0)
		return code;
	const cJSON *helper = find_key(helpers, lookup->host);
	if (helper && !cJSON_IsString(helper))
		return sm_error_set(err, EBADMSG, "%s: credHelpers[\"%.200s\"] is not a string", file, helper->string);
	if (helper && *helper->valuestring)
		code = ask_helper(lookup, helper->valuestring, file, err);
	else if (*store)
		code = ask_helper(lookup, store, file, err);
	return code ? code : read_auths(lookup, auths, file, err);
}

static int read_text(struct lookup *lookup, const char *text, size_t len, const char *file, struct sm_error *err)
{
	SM_JSON_CLEANUP cJSON *root = NULL;
	int code = len ? sm_json_parse(text, len, file, &root, err) : 0;
	return !code && root ? read_document(lookup, root, file, err) : code;
}

/* 0 also when there is no such file. */
static int read_file(struct lookup *lookup, const char *file, struct sm_error *err)
{
	char *text;
	size_t len;
	struct sm_error own = { 0 };
	int code = sm_path_read(file, FILE_MAX_BYTES, &text, &len, &own);
	if (code < 0)
		return own.code == ENOENT || own.code == ENOTDIR ? 0 : sm_error_set(err, own.code, "%s", own.message);
	code = read_text(lookup, text, len, file, err);
	explicit_bzero(text, len);
	free(text);
	return code;
}

int sm_oci_credentials_find(const char *host, const char *repository, const atomic_bool *cancel,
                            struct sm_oci_credentials *ret, struct sm_error *err)
{
	char file[PATH_MAX], folder[PATH_MAX];
	struct lookup lookup = { .host = host, .repository = repository, .cancel = cancel, .found = ret };
	memset(ret, 0, sizeof *ret);
	const char *named = getenv("REGISTRY_AUTH_FILE");
	if (named && *named) {
		if (access(named, R_OK) < 0)
			return sm_error_sys(err, errno, "'%.300s', which $REGISTRY_AUTH_FILE names", named);
		return read_file(&lookup, named, err);
	}
	const char *inline_text = getenv("DOCKER_AUTH_CONFIG");
	int code = inline_text ? read_text(&lookup, inline_text, strlen(inline_text), "$DOCKER_AUTH_CONFIG", err) : 0;
	if (code)
		return code;
	const char *base = getenv("XDG_RUNTIME_DIR");
	code = base && *base == '/' ? sm_path_format(file, err, "%s/containers/auth.json", base)
	                            : sm_path_format(file, err, "/run/containers/%u/auth.json", (unsigned)getuid());
	/* The folder above is root's where podman runs as root alone. */
	if (!code && ((base && *base == '/') || access(file, R_OK) == 0))
		code = read_file(&lookup, file, err);
	if (!code && sm_path_config_home("containers", folder, NULL) == 0 &&
	    !(code = sm_path_format(file, err, "%s/auth.json", folder)))
		code = read_file(&lookup, file, err);
	if (code)
		return code;
	if ((base = getenv("DOCKER_CONFIG")) && *base)
		code = sm_path_format(file, err, "%s/config.json", base);
	else if ((base = getenv("HOME")) && *base == '/')
		code = sm_path_format(file, err, "%s/.docker/config.json", base);
	else
		return 0;
	return code < 0 ? code : read_file(&lookup, file, err);
}

void sm_oci_credentials_wipe(char **secret)
{
	if (*secret)
		explicit_bzero(*secret, strlen(*secret));
	free(*secret);
	*secret = NULL;
}

void sm_oci_credentials_done(struct sm_oci_credentials *credentials)
{
	sm_oci_credentials_wipe(&credentials->username);
	sm_oci_credentials_wipe(&credentials->password);
	sm_oci_credentials_wipe(&credentials->identity_token);
	sm_oci_credentials_wipe(&credentials->registry_token);
}
