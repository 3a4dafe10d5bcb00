#include "oci/reference.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TAG_MAX 128 /* of a registry tag (OCI distribution-spec, "Pulling manifests") */
#define LOWER   "abcdefghijklmnopqrstuvwxyz"
#define DIGITS  "0123456789"
#define LETTERS LOWER "ABCDEFGHIJKLMNOPQRSTUVWXYZ"

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

/* A ref.name of a layout is freer than a registry's tag: "localhost/bb:1" (image-spec, annotations.md). */
static int parse_layout(struct parser *p, struct sm_oci_reference *ref)
{
	ref->kind = SM_OCI_REFERENCE_LAYOUT;
	const char *at = strstr(p->at, "@sha256:");
	const char *colon = strchr(p->at, ':');
	const char *end = colon ? colon : p->at + strlen(p->at);
	if (at && at < end)
		end = at;
	if (end == p->at)
		return wrong(p, p->at, "folder expected");
	if ((size_t)(end - p->at) >= sizeof ref->path)
		return wrong(p, p->at, "folder name is too long");
	memcpy(ref->path, p->at, (size_t)(end - p->at));
	if (end == at)
		return parse_digest(p, at + 1, ref);
	if (!colon)
		return 0;
	size_t len = strspn(colon + 1, LETTERS DIGITS "-._:@/+");
	if (!len && !colon[1])
		return wrong(p, colon + 1, "tag expected");
	if (colon[1 + len])
		return wrong(p, colon + 1 + len, "character not allowed in a tag");
	if (len >= sizeof ref->tag)
		return wrong(p, colon + 1, "tag is too long");
	memcpy(ref->tag, colon + 1, len);
	return 0;
}

/* domain-name labels, or an IPv6 address in brackets, and an optional port */
static int parse_host(struct parser *p, const char *end, struct sm_oci_reference *ref)
{
	const char *at = p->at;
	size_t len = (size_t)(end - at);
	if (memchr(at, '@', len))
		return wrong(p, at, "user names and passwords do not belong in a reference");
	if (!len)
		return wrong(p, at, "host expected");
	if (len >= sizeof ref->host - 8)
		return wrong(p, at, "host is too long");

	if (*at == '[') {
		at += 1 + strspn(at + 1, DIGITS "abcdefABCDEF:.");
		if (at >= end || *at != ']')
			return wrong(p, at, "']' expected after an IPv6 address");
		at++;
	} else {
		const char *label = at;
		for (; at < end && *at != ':'; at++) {
			bool edge = at == label || at + 1 == end || at[1] == '.' || at[1] == ':';
			if (*at == '.' ? at == label : !isalnum((unsigned char)*at) && (*at != '-' || edge))
				return wrong(p, at, "character not allowed here in a host name");
			if (*at == '.')
				label = at + 1;
		}
		if (at == label)
			return wrong(p, at, "host name expected");
	}
	if (at < end) {
		if (*at != ':')
			return wrong(p, at, "':' and a port expected");
		const char *port = ++at;
		size_t digits = strspn(port, DIGITS);
		if (!digits || digits > 5 || port + digits != end || atoi(port) < 1 || atoi(port) > 65535)
			return wrong(p, port, "port is not a number from 1 to 65535");
	}
	for (size_t i = 0; i < len; i++)
		ref->host[i] = (char)tolower((unsigned char)p->at[i]);
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

static int parse_registry(struct parser *p, bool full, struct sm_oci_reference *ref)
{
	ref->kind = SM_OCI_REFERENCE_REGISTRY;
	const char *slash = strchr(p->at, '/');
	int code;
	if (full || (slash && is_host(p->at, slash))) {
		const char *end = slash ? slash : p->at + strlen(p->at);
		if ((code = parse_host(p, end, ref)) < 0)
			return code;
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

int sm_oci_reference_parse(const char *text, struct sm_oci_reference *ret, struct sm_error *err)
{
	struct parser p = { .text = text, .at = text, .err = err };
	memset(ret, 0, sizeof *ret);
	if (!*text)
		return wrong(&p, text, "empty");
	if (starts(text, "oci:")) {
		p.at += 4;
		return parse_layout(&p, ret);
	}
	if (starts(text, "http://") || starts(text, "https://")) {
		ret->plain_http = text[4] == ':';
		p.at = strstr(text, "//") + 2;
		return parse_registry(&p, true, ret);
	}
	if (starts(text, "docker://"))
		p.at += 9;
	else if (strstr(text, "://"))
		return wrong(&p, text, "scheme is none of oci:, http://, https://, docker://");
	return parse_registry(&p, false, ret);
}

void sm_oci_reference_format(const struct sm_oci_reference *reference, char out[SM_OCI_REFERENCE_TEXT])
{
	const char *tag = reference->tag;
	const char *digest = reference->digest;
	bool layout = reference->kind == SM_OCI_REFERENCE_LAYOUT;
	snprintf(out, SM_OCI_REFERENCE_TEXT, "%s%s%s%s%s%s%s%s",
	         layout ? "oci:" : (reference->plain_http ? "http://" : ""), layout ? reference->path : reference->host,
	         layout ? "" : "/", reference->repository, *tag ? ":" : "", tag, *digest ? "@" : "", digest);
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
