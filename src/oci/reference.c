#include "oci/reference.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TAG_MAX      128 /* of a registry tag (OCI distribution-spec, "Pulling manifests") */
#define INDEX_DIGITS 6
#define LOWER        "abcdefghijklmnopqrstuvwxyz"
#define DIGITS       "0123456789"
#define LETTERS      LOWER "ABCDEFGHIJKLMNOPQRSTUVWXYZ"

struct parser {
	const char *text; /* the whole reference, for columns */
	const char *at;
	struct sm_error *err;
};

static int wrong(const struct parser *p, const char *at, const char *what)
{
	return sm_error_set(p->err, EINVAL, "reference '%.300s': column %zu: %s", p->text, (size_t)(at - p->text) + 1,
	                    what);
}

static bool starts(const char *text, const char *prefix)
{
	return !strncmp(text, prefix, strlen(prefix));
}

static int parse_digest(const struct parser *p, const char *at, struct sm_oci_reference *ref)
{
	struct sm_error why = { 0 };
	if (sm_oci_digest_check(at, "digest", &why) < 0)
		return wrong(p, at, why.message);
	snprintf(ref->digest, sizeof ref->digest, "%s", at);
	return 0;
}

/* The folder or file of a transport, up to `end`. */
static int take_path(struct parser *p, const char *end, const char *what, struct sm_oci_reference *ref)
{
	size_t len = (size_t)(end - p->at);
	if (!len || len >= sizeof ref->path) {
		char message[64];
		snprintf(message, sizeof message, "%s %s", what, len ? "name is too long" : "expected");
		return wrong(p, p->at, message);
	}
	memcpy(ref->path, p->at, len);
	p->at = end;
	return 0;
}

/* "@INDEX" */
static int parse_index(struct parser *p, struct sm_oci_reference *ref)
{
	const char *digits = p->at + 1;
	size_t len = strspn(digits, DIGITS);
	if (!len || digits[len])
		return wrong(p, digits + len, "digit expected after '@': the number of an image, from 0");
	if (len > 1 && *digits == '0')
		return wrong(p, digits, "number with a leading zero");
	if (len > INDEX_DIGITS)
		return wrong(p, digits, "number of an image is too large");
	ref->index = atoi(digits);
	return 0;
}

/* A ref.name of a layout is freer than a registry's tag: "localhost/bb:1" (image-spec, annotations.md). */
static int parse_layout(struct parser *p, const char *what, struct sm_oci_reference *ref)
{
	const char *at = strstr(p->at, "@sha256:");
	const char *end = p->at + strcspn(p->at, ":");
	if (at && at < end)
		end = at;
	int code = take_path(p, end, what, ref);
	if (code < 0)
		return code;
	if (end == at)
		return parse_digest(p, at + 1, ref);
	if (!*end)
		return 0;
	if (*++p->at == '@')
		return parse_index(p, ref);
	size_t len = strspn(p->at, LETTERS DIGITS "-._:@/+");
	if (!len && !*p->at)
		return wrong(p, p->at, "tag expected");
	if (p->at[len])
		return wrong(p, p->at + len, "character not allowed in a tag");
	if (len >= sizeof ref->tag)
		return wrong(p, p->at, "tag is too long");
	memcpy(ref->tag, p->at, len);
	return 0;
}

/* An IPv6 address in brackets, in the one spelling that it has (RFC 5952). */
static int parse_ipv6(struct parser *p, const char *end, struct sm_oci_reference *ref)
{
	char text[INET6_ADDRSTRLEN];
	struct in6_addr address;
	const char *first = p->at + 1;
	size_t len = strspn(first, DIGITS "abcdefABCDEF:.");
	if (first + len >= end || first[len] != ']')
		return wrong(p, first + len, "']' expected after an IPv6 address");
	p->at = first + len + 1;
	if (len < sizeof text) {
		memcpy(text, first, len);
		text[len] = 0;
	}
	if (len >= sizeof text || inet_pton(AF_INET6, text, &address) != 1)
		return wrong(p, first, "not an IPv6 address");
	inet_ntop(AF_INET6, &address, text, sizeof text);
	snprintf(ref->host, sizeof ref->host, "[%s]", text);
	return 0;
}

/* Labels of letters, digits and inner dashes */
static int parse_domain(struct parser *p, const char *end, struct sm_oci_reference *ref)
{
	const char *start = p->at, *label = start, *at = start;
	for (; at < end && *at != ':'; at++) {
		bool edge = at == label || at + 1 == end || at[1] == '.' || at[1] == ':';
		bool fine = strchr(LETTERS DIGITS, *at) || (*at == '-' && !edge) || (*at == '.' && at != label);
		if (!fine)
			return wrong(p, at, "character not allowed here in a host name");
		if (*at == '.')
			label = at + 1;
	}
	if (at == label)
		return wrong(p, at, "host name expected");
	for (size_t i = 0; start + i < at; i++)
		ref->host[i] = (char)tolower((unsigned char)start[i]);
	p->at = at;
	return 0;
}

/* A domain or an IPv6 address, and an optional port. */
static int parse_host(struct parser *p, const char *end, struct sm_oci_reference *ref)
{
	size_t len = (size_t)(end - p->at);
	/* And not in a message either. */
	if (memchr(p->at, '@', len))
		return sm_error_set(p->err, EINVAL,
		                    "reference: column %zu: user names and passwords do not belong in it",
		                    (size_t)(p->at - p->text) + 1);
	if (!len)
		return wrong(p, p->at, "host expected");
	if (len >= sizeof ref->host - 8)
		return wrong(p, p->at, "host is too long");
	int code = *p->at == '[' ? parse_ipv6(p, end, ref) : parse_domain(p, end, ref);
	if (code < 0 || p->at == end)
		return code;
	if (*p->at != ':')
		return wrong(p, p->at, "':' and a port expected");
	const char *port = ++p->at;
	size_t digits = strspn(port, DIGITS);
	if (!digits || digits > 5 || port + digits != end || atoi(port) < 1 || atoi(port) > 65535)
		return wrong(p, port, "port is not a number from 1 to 65535");
	size_t used = strlen(ref->host);
	snprintf(ref->host + used, sizeof ref->host - used, ":%d", atoi(port));
	return 0;
}

/* path-component: alphanumerics with single separators ".", "_", "__" or any run of "-" inside */
static int parse_component(struct parser *p)
{
	const char *start = p->at;
	for (;;) {
		size_t len = strspn(p->at, LOWER DIGITS);
		if (!len) {
			if (isupper((unsigned char)*p->at))
				return wrong(p, p->at, "upper-case letter in a repository name");
			return wrong(p, p->at,
			             p->at == start ? "repository name expected"
			                            : "lower-case letter or digit expected");
		}
		p->at += len;
		size_t dashes = strspn(p->at, "-");
		if (dashes)
			p->at += dashes;
		else if (starts(p->at, "__"))
			p->at += 2;
		else if (*p->at == '.' || *p->at == '_')
			p->at++;
		else
			return 0;
	}
}

static int parse_repository(struct parser *p, struct sm_oci_reference *ref)
{
	const char *start = p->at;
	for (;;) {
		int code = parse_component(p);
		if (code < 0)
			return code;
		if (*p->at != '/')
			break;
		p->at++;
	}
	size_t len = (size_t)(p->at - start);
	bool official = !strcmp(ref->host, "docker.io") && !memchr(start, '/', len);
	if (len + (official ? 8 : 0) >= sizeof ref->repository)
		return wrong(p, start, "repository name is longer than 255 characters");
	snprintf(ref->repository, sizeof ref->repository, "%s%.*s", official ? "library/" : "", (int)len, start);
	return 0;
}

static int parse_tag(struct parser *p, struct sm_oci_reference *ref)
{
	const char *start = ++p->at;
	size_t len = strspn(start, LETTERS DIGITS "_.-");
	if (!len || *start == '.' || *start == '-')
		return wrong(p, start, "tag expected: a letter, digit or '_' first");
	if (len > TAG_MAX)
		return wrong(p, start, "tag is longer than 128 characters");
	memcpy(ref->tag, start, len);
	p->at += len;
	return 0;
}

/* A first part is a host only if it cannot be a folder of docker.io. */
static bool is_host(const char *text, const char *slash)
{
	for (const char *at = text; at < slash; at++)
		if (*at == '.' || *at == ':' || *at == '[' || isupper((unsigned char)*at))
			return true;
	return slash - text == 9 && starts(text, "localhost");
}

static int parse_name(struct parser *p, bool full, struct sm_oci_reference *ref)
{
	const char *slash = strchr(p->at, '/');
	int code;
	if (!full && strspn(p->at, DIGITS "abcdef") == 64 && !p->at[64])
		return wrong(p, p->at, "64 hex digits are an image's ID, not a name");
	if (full || (slash && is_host(p->at, slash))) {
		const char *end = slash ? slash : p->at + strlen(p->at);
		const char *start = p->at;
		if ((code = parse_host(p, end, ref)) < 0)
			return code;
		/* A host by its upper-case letters alone would be read as part of the name without them, and an
		 * archive's names cannot say https:// to tell. */
		if (ref->kind == SM_OCI_REFERENCE_DOCKER_ARCHIVE && !is_host(ref->host, ref->host + strlen(ref->host)))
			memcpy(ref->host, start, (size_t)(end - start));
		if (!slash)
			return wrong(p, end, "'/' and a repository name expected");
		p->at = slash + 1;
	} else {
		snprintf(ref->host, sizeof ref->host, "docker.io");
	}
	if (!strcmp(ref->host, "index.docker.io"))
		snprintf(ref->host, sizeof ref->host, "docker.io");
	if ((code = parse_repository(p, ref)) < 0)
		return code;
	if (*p->at == ':' && (code = parse_tag(p, ref)) < 0)
		return code;
	if (*p->at == '@')
		return parse_digest(p, p->at + 1, ref);
	if (*p->at)
		return wrong(p, p->at,
		             isupper((unsigned char)*p->at) ? "upper-case letter in a repository name"
		                                            : "character not allowed here");
	if (!ref->tag[0])
		snprintf(ref->tag, sizeof ref->tag, "latest");
	return 0;
}

static int parse_docker_archive(struct parser *p, struct sm_oci_reference *ref)
{
	int code = take_path(p, p->at + strcspn(p->at, ":"), "file", ref);
	if (code < 0 || !*p->at)
		return code;
	const char *name = ++p->at;
	if (*name == '@')
		return parse_index(p, ref);
	if ((code = parse_name(p, false, ref)) < 0)
		return code;
	return ref->digest[0] ? wrong(p, p->at, "an archive's images have no digest to go by") : 0;
}

static const struct transport {
	const char *prefix;
	enum sm_oci_reference_kind kind;
} transports[] = {
	{ "oci:", SM_OCI_REFERENCE_LAYOUT },
	{ "oci-archive:", SM_OCI_REFERENCE_OCI_ARCHIVE },
	{ "docker-archive:", SM_OCI_REFERENCE_DOCKER_ARCHIVE },
	{ "dir:", SM_OCI_REFERENCE_DIR },
	{ "http://", SM_OCI_REFERENCE_REGISTRY },
	{ "https://", SM_OCI_REFERENCE_REGISTRY },
	{ "docker://", SM_OCI_REFERENCE_REGISTRY },
};

/* What others take as transports; as names of images they can be written with docker:// before them. */
static const char *const foreign[] = {
	"containers-storage:", "docker-daemon:", "ostree:", "sif:", "tarball:", "atomic:",
};

static bool is_foreign(const char *text)
{
	for (size_t i = 0; i < sizeof foreign / sizeof foreign[0]; i++)
		if (starts(text, foreign[i]))
			return true;
	return false;
}

static int check_foreign(const struct parser *p)
{
	if (is_foreign(p->text))
		return wrong(p, p->text, "this transport is not supported (docker:// before it makes it a name)");
	if (strstr(p->text, "://"))
		return wrong(p, p->text, "scheme is none of http://, https://, docker://");
	return 0;
}

static int parse_transport(struct parser *p, const struct transport *transport, struct sm_oci_reference *ref)
{
	ref->kind = transport->kind;
	p->at += strlen(transport->prefix);
	switch (transport->kind) {
	case SM_OCI_REFERENCE_LAYOUT:
		return parse_layout(p, "folder", ref);
	case SM_OCI_REFERENCE_OCI_ARCHIVE:
		return parse_layout(p, "file", ref);
	case SM_OCI_REFERENCE_DOCKER_ARCHIVE:
		return parse_docker_archive(p, ref);
	case SM_OCI_REFERENCE_DIR:
		return take_path(p, p->at + strlen(p->at), "folder", ref);
	case SM_OCI_REFERENCE_REGISTRY:
		break;
	}
	ref->plain_http = starts(transport->prefix, "http:");
	return parse_name(p, starts(transport->prefix, "http"), ref);
}

int sm_oci_reference_parse(const char *text, struct sm_oci_reference *ret, struct sm_error *err)
{
	struct parser p = { .text = text, .at = text, .err = err };
	memset(ret, 0, sizeof *ret);
	ret->index = -1;
	ret->kind = SM_OCI_REFERENCE_REGISTRY;
	if (!*text)
		return wrong(&p, text, "empty");
	for (size_t i = 0; i < sizeof transports / sizeof transports[0]; i++)
		if (starts(text, transports[i].prefix))
			return parse_transport(&p, &transports[i], ret);
	int code = check_foreign(&p);
	return code < 0 ? code : parse_name(&p, false, ret);
}

const char *sm_oci_reference_kind_name(enum sm_oci_reference_kind kind)
{
	static const char *const names[] = {
		[SM_OCI_REFERENCE_LAYOUT] = "layout",
		[SM_OCI_REFERENCE_REGISTRY] = "registry",
		[SM_OCI_REFERENCE_OCI_ARCHIVE] = "oci-archive",
		[SM_OCI_REFERENCE_DOCKER_ARCHIVE] = "docker-archive",
		[SM_OCI_REFERENCE_DIR] = "dir",
	};
	return names[kind];
}

/* "oci:5000" is a host to who says docker:// before it, or OCI:5000. */
static bool is_transport(const char *host)
{
	for (size_t i = 0; i < sizeof transports / sizeof transports[0]; i++)
		if (starts(host, transports[i].prefix))
			return true;
	return is_foreign(host);
}

static const char *prefix_of(const struct sm_oci_reference *reference)
{
	const char *host = reference->host;
	if (reference->kind != SM_OCI_REFERENCE_REGISTRY)
		for (size_t i = 0; i < sizeof transports / sizeof transports[0]; i++)
			if (transports[i].kind == reference->kind)
				return transports[i].prefix;
	if (reference->plain_http)
		return "http://";
	/* A host that would be read as a folder of docker.io, or as something else, needs to be named in full. */
	return is_host(host, host + strlen(host)) && !is_transport(host) ? "" : "https://";
}

void sm_oci_reference_format(const struct sm_oci_reference *reference, char out[SM_OCI_REFERENCE_TEXT])
{
	const char *tag = reference->tag;
	const char *digest = reference->digest;
	char index[16] = "";
	bool named = reference->path[0] && reference->host[0];
	if (reference->index >= 0)
		snprintf(index, sizeof index, ":@%d", reference->index);
	snprintf(out, SM_OCI_REFERENCE_TEXT, "%s%s%s%s%s%s%s%s%s%s%s", prefix_of(reference), reference->path,
	         named ? ":" : "", reference->host, reference->host[0] ? "/" : "", reference->repository,
	         *tag ? ":" : "", tag, *digest ? "@" : "", digest, index);
}

bool sm_oci_reference_is_loopback(const char *host)
{
	size_t len = *host == '[' ? strcspn(host, "]") + 1 : strcspn(host, ":");
	if (len == 9 && starts(host, "localhost"))
		return true;
	if (len == 5 && starts(host, "[::1]"))
		return true;
	/* A name may begin with "127." too; only an address stays on this machine. */
	return len >= 7 && len <= 15 && starts(host, "127.") && strspn(host, DIGITS ".") == len;
}
