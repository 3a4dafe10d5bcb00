#include "oci/retry.h"

#include <sys/random.h>
#include <time.h>

#define FIRST_MS 200u
#define MAX_MS   10000u

int64_t sm_oci_retry_now_ms(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

bool sm_oci_retry_status(int status)
{
	return status == 408 || status == 429 || (status >= 500 && status != 501 && status != 505);
}

int64_t sm_oci_retry_delay_ms(unsigned failures, unsigned retry_after_s)
{
	unsigned full = MAX_MS, number = 0;
	if (failures < 7)
		full = FIRST_MS << (failures ? failures - 1 : 0);
	if (full > MAX_MS)
		full = MAX_MS;
	/* Without randomness all who failed at once would come back at once. */
	if (getrandom(&number, sizeof number, GRND_NONBLOCK) != (int)sizeof number)
		number = 0;
	unsigned delay = full / 2 + number % (full / 2 + 1);
	return delay > retry_after_s * 1000u ? delay : retry_after_s * 1000u;
}
