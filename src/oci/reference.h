/* What a user calls an image.
 *
 *   http://HOST[:PORT]/NAME[:TAG][@DIGEST], https://...    a registry, named in full
 *   [docker://][HOST[:PORT]/]NAME[:TAG][@DIGEST]           a docker reference; https
 *   oci:DIR[:TAG|:@INDEX]  oci:DIR@DIGEST                  an OCI image layout
 *   oci-archive:FILE[:TAG|:@INDEX]  oci-archive:FILE@DIGEST    one in a tar, compressed or not
 *   docker-archive:FILE[:NAME[:TAG]|:@INDEX]               what `docker save` writes, compressed or not
 *   dir:PATH                                               skopeo's folder of blobs
 *
 * DIR and FILE end at the first colon, PATH at the end; INDEX counts the images in there from 0.  The transports are
 * those of containers-transports(5); its others are refused by name, and so cannot be read as the name of an image.
 * The grammar of names, tags and the default host is that of github.com/distribution/reference.  A
 * reference without tag and digest means the tag "latest"; with both, the digest decides.  Credentials
 * inside a reference are refused. */
#ifndef SM_OCI_REFERENCE_H
#define SM_OCI_REFERENCE_H

#include "oci/digest.h"

#include <limits.h>

enum sm_oci_reference_kind {
	SM_OCI_REFERENCE_LAYOUT,
	SM_OCI_REFERENCE_REGISTRY,
	SM_OCI_REFERENCE_OCI_ARCHIVE,
	SM_OCI_REFERENCE_DOCKER_ARCHIVE,
	SM_OCI_REFERENCE_DIR,
};

struct sm_oci_reference {
	enum sm_oci_reference_kind kind;
	bool plain_http;                 /* registry: the reference says http:// */
	char path[PATH_MAX];             /* all but a registry: the folder or file as given */
	int index;                       /* which image of a layout or archive; -1: not said */
	char host[280];                  /* registry: HOST[:PORT], lower case; "docker.io" by default */
	char repository[256];            /* registry, and docker-archive with a name: "library/nginx" */
	char tag[256];                   /* "": none (layout without tag, or a digest alone) */
	char digest[SM_OCI_DIGEST_SIZE]; /* "": none */
};

/* Pure; -EINVAL with the column (from 1) of what is wrong. */
int sm_oci_reference_parse(const char *text, struct sm_oci_reference *ret, struct sm_error *err);

/* "registry", "layout", "oci-archive", "docker-archive", "dir" */
const char *sm_oci_reference_kind_name(enum sm_oci_reference_kind kind);

#define SM_OCI_REFERENCE_TEXT (PATH_MAX + 1024)
/* The one spelling that all equal references share: "docker.io/library/nginx:latest". */
void sm_oci_reference_format(const struct sm_oci_reference *reference, char out[SM_OCI_REFERENCE_TEXT]);

/* Is the host of "HOST[:PORT]" this machine by its name: localhost, 127.0.0.0/8 or [::1]? */
bool sm_oci_reference_is_loopback(const char *host);

#endif
