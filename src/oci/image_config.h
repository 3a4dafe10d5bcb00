/* What an image's config says about running it, checked (OCI image-spec, config.md; Docker's Healthcheck, image spec
 * v1.2). */
#ifndef SM_OCI_IMAGE_CONFIG_H
#define SM_OCI_IMAGE_CONFIG_H

#include "base/json.h"

/* The document's "config" as an object of our own spelling, owned by the caller:
 *
 *   entrypoint, cmd, env         lists of strings, as they are
 *   workdir, user, stop_signal   strings, "" when absent
 *   volumes, exposed_ports       lists of the names: "/data", "80/tcp"
 *   labels                       an object of strings
 *   healthcheck                  absent when the image has none; test (a list), and where the image says them
 * interval_ms, timeout_ms, start_period_ms, start_interval_ms, retries
 *
 * -EBADMSG for a member of another type; the error names `what` and the member.  Unknown members are left out. */
int sm_oci_image_config_read(const cJSON *document, const char *what, cJSON **ret_process, struct sm_error *err);

#endif
