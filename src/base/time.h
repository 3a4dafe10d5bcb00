/* Time that only goes forward. */
#ifndef SM_BASE_TIME_H
#define SM_BASE_TIME_H

#include <stdint.h>
#include <time.h>

/* CLOCK_MONOTONIC, microseconds. */
static inline uint64_t sm_time_us(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000u + (uint64_t)now.tv_nsec / 1000u;
}

/* Add to *sum_us what has passed since *since_us, which becomes now. */
static inline void sm_time_lap(uint64_t *since_us, uint32_t *sum_us)
{
	uint64_t now = sm_time_us();
	*sum_us += (uint32_t)(now - *since_us);
	*since_us = now;
}

#endif
