#include "fuse/span.h"

#include <errno.h>
#include <limits.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

size_t sm_fuse_span_len(const struct sm_fuse_span *span)
{
	size_t len = 0;
	for (unsigned i = 0; i < span->n; i++)
		if (__builtin_add_overflow(len, span->iov[i].iov_len, &len))
			return SIZE_MAX;
	return len;
}

bool sm_fuse_span_skip(struct sm_fuse_span *span, size_t len)
{
	while (span->n && len >= span->iov->iov_len) {
		len -= span->iov->iov_len;
		span->iov++;
		span->n--;
	}
	if (!len)
		return true;
	if (!span->n)
		return false;
	span->iov->iov_base = (char *)span->iov->iov_base + len;
	span->iov->iov_len -= len;
	return true;
}

void sm_fuse_span_cut(struct sm_fuse_span *span, size_t len)
{
	unsigned i = 0;
	for (; i < span->n && len; i++) {
		if (span->iov[i].iov_len > len)
			span->iov[i].iov_len = len;
		len -= span->iov[i].iov_len;
	}
	span->n = i;
}

bool sm_fuse_span_split(struct sm_fuse_span *span, size_t len, struct iovec head[SM_FUSE_HEAD_MAX],
                        struct sm_fuse_span *ret_head)
{
	*ret_head = (struct sm_fuse_span){ .iov = head, .plain = span->plain };
	while (len) {
		if (!span->n)
			return false;
		size_t part = span->iov->iov_len < len ? span->iov->iov_len : len;
		if (part)
			head[ret_head->n++] = (struct iovec){ span->iov->iov_base, part };
		len -= part;
		sm_fuse_span_skip(span, part);
		if (!part) {
			span->iov++;
			span->n--;
		}
	}
	return true;
}

/* The kernel touches it: what cannot be reached is EFAULT. */
static int copy_by_kernel(struct sm_fuse_span *span, void *data, size_t len, bool put)
{
	while (len) {
		struct iovec mine = { data, len };
		unsigned n = span->n < IOV_MAX ? span->n : IOV_MAX;
		ssize_t done = put ? process_vm_writev(getpid(), &mine, 1, span->iov, n, 0)
		                   : process_vm_readv(getpid(), &mine, 1, span->iov, n, 0);
		if (done <= 0)
			return -EFAULT;
		sm_fuse_span_skip(span, (size_t)done);
		data = (char *)data + done;
		len -= (size_t)done;
	}
	return 0;
}

static int copy(struct sm_fuse_span *span, void *data, size_t len, bool put)
{
	if (!span->plain)
		return copy_by_kernel(span, data, len, put);
	while (len) {
		if (!span->n)
			return -EFAULT;
		size_t part = span->iov->iov_len < len ? span->iov->iov_len : len;
		if (put)
			memcpy(span->iov->iov_base, data, part);
		else
			memcpy(data, span->iov->iov_base, part);
		data = (char *)data + part;
		len -= part;
		sm_fuse_span_skip(span, part);
		if (!part) {
			span->iov++;
			span->n--;
		}
	}
	return 0;
}

int sm_fuse_span_get(struct sm_fuse_span *span, void *data, size_t len)
{
	return copy(span, data, len, false);
}

int sm_fuse_span_put(struct sm_fuse_span *span, const void *data, size_t len)
{
	return copy(span, (void *)data, len, true);
}
