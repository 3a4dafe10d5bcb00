/* When to ask again.  A failure is transient when asking again can help: the connection broke or stood still, or the
 * status is 408, 429 or 5xx. */
#ifndef SM_OCI_RETRY_H
#define SM_OCI_RETRY_H

#include <stdbool.h>
#include <stdint.h>

#define SM_OCI_RETRIES           5u   /* in a row, without progress */
#define SM_OCI_RETRY_AFTER_MAX_S 120u /* who asks for more is not waited for */

int64_t sm_oci_retry_now_ms(void); /* monotonic */
bool sm_oci_retry_status(int status);
/* Before the attempt after the `failures`th failure in a row: doubling, a random half of it, and no less than what the
 * server asks for (Retry-After; 0: nothing). */
int64_t sm_oci_retry_delay_ms(unsigned failures, unsigned retry_after_s);

#endif
