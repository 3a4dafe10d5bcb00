#include "virtio/blk_request.h"

#include <errno.h>
#include <string.h>
#include <sys/uio.h>

static bool too_large(const struct iovec *iov, unsigned count)
{
	/* One more than data takes: the header, or the status. */
	if (count > SM_BLK_SEG_MAX + 1)
		return true;
	for (unsigned i = 0; i < count; i++)
		if (iov[i].iov_len > SM_BLK_SIZE_MAX + SM_BLK_HEADER)
			return true;
	return false;
}

static uint8_t check_range(uint64_t sector, uint64_t disk_bytes, struct sm_blk_request *request)
{
	if (request->bytes % SM_BLK_SECTOR)
		return SM_BLK_IOERR;
	if (sector > disk_bytes / SM_BLK_SECTOR || request->bytes > disk_bytes - sector * SM_BLK_SECTOR)
		return SM_BLK_IOERR;
	request->offset = sector * SM_BLK_SECTOR;
	return SM_BLK_OK;
}

uint8_t sm_blk_parse(const struct sm_chain *chain, uint64_t disk_bytes, struct sm_blk_request *ret)
{
	struct {
		uint32_t type, reserved;
		uint64_t sector;
	} header;
	_Static_assert(sizeof header == SM_BLK_HEADER, "virtio_blk_req");
	*ret = (struct sm_blk_request){ 0 };
	if (sm_chain_read(chain, 0, &header, sizeof header) != sizeof header)
		return SM_BLK_IOERR;
	ret->type = header.type;
	switch (header.type) {
	case SM_BLK_IN:
		if (too_large(chain->iov + chain->nread, chain->nwrite))
			return SM_BLK_IOERR;
		ret->bytes = chain->write_bytes - 1;
		return check_range(header.sector, disk_bytes, ret);
	case SM_BLK_OUT:
		if (too_large(chain->iov, chain->nread))
			return SM_BLK_IOERR;
		ret->bytes = chain->read_bytes - SM_BLK_HEADER;
		return check_range(header.sector, disk_bytes, ret);
	case SM_BLK_DISCARD:
	case SM_BLK_WRITE_ZEROES:
		ret->bytes = chain->read_bytes - SM_BLK_HEADER;
		return SM_BLK_OK;
	case SM_BLK_FLUSH:
	case SM_BLK_GET_ID:
		return SM_BLK_OK;
	default:
		return SM_BLK_UNSUPPORTED;
	}
}

uint8_t sm_blk_serve_id(const struct sm_chain *chain, const char *serial, uint64_t *ret_data)
{
	char id[SM_BLK_SERIAL] = { 0 };
	if (chain->write_bytes - 1 < sizeof id)
		return SM_BLK_IOERR;
	memcpy(id, serial, strnlen(serial, sizeof id));
	*ret_data = sm_chain_write(chain, 0, id, sizeof id);
	return SM_BLK_OK;
}

uint32_t sm_blk_answer(const struct sm_chain *chain, uint8_t status, uint64_t data)
{
	const uint64_t room = chain->write_bytes - 1;
	sm_chain_write(chain, room, &status, 1);
	return (uint32_t)(data + (data == room));
}

typedef ssize_t (*transfer)(int fd, const struct iovec *iov, int count, off_t offset);

static int whole(transfer move, int fd, struct iovec *iov, unsigned count, uint64_t offset)
{
	while (count) {
		ssize_t got = move(fd, iov, (int)count, (off_t)offset);
		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return -errno;
		if (got == 0)
			return -ENODATA;
		offset += (uint64_t)got;
		size_t left = (size_t)got;
		while (count && left >= iov->iov_len) {
			left -= iov->iov_len;
			iov++;
			count--;
		}
		if (count) {
			iov->iov_base = (uint8_t *)iov->iov_base + left;
			iov->iov_len -= left;
		}
	}
	return 0;
}

int sm_blk_pread(int fd, struct iovec *iov, unsigned count, uint64_t offset)
{
	return whole(preadv, fd, iov, count, offset);
}

int sm_blk_pwrite(int fd, struct iovec *iov, unsigned count, uint64_t offset)
{
	return whole(pwritev, fd, iov, count, offset);
}
