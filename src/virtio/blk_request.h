/* What block devices share: requests as the driver makes them (virtio 1.2, 5.2.6), taken apart and bounded.  Private to
 * this folder. */
#ifndef SM_VIRTIO_BLK_REQUEST_H
#define SM_VIRTIO_BLK_REQUEST_H

#include "virtio/queue.h"

#define SM_BLK_DEVICE_ID 2u
#define SM_BLK_SECTOR    512u
#define SM_BLK_HEADER    16u
#define SM_BLK_SERIAL    20u
#define SM_BLK_SEG_MAX   126u         /* data segments of a request: with header and status they fit the queue */
#define SM_BLK_SIZE_MAX  (256u << 10) /* bytes of a segment; both together bound a request */

#define SM_BLK_F_SIZE_MAX     (UINT64_C(1) << 1)
#define SM_BLK_F_SEG_MAX      (UINT64_C(1) << 2)
#define SM_BLK_F_RO           (UINT64_C(1) << 5)
#define SM_BLK_F_BLK_SIZE     (UINT64_C(1) << 6)
#define SM_BLK_F_FLUSH        (UINT64_C(1) << 9)
#define SM_BLK_F_TOPOLOGY     (UINT64_C(1) << 10)
#define SM_BLK_F_CONFIG_WCE   (UINT64_C(1) << 11)
#define SM_BLK_F_MQ           (UINT64_C(1) << 12)
#define SM_BLK_F_DISCARD      (UINT64_C(1) << 13)
#define SM_BLK_F_WRITE_ZEROES (UINT64_C(1) << 14)

enum sm_blk_type {
	SM_BLK_IN = 0,
	SM_BLK_OUT = 1,
	SM_BLK_FLUSH = 4,
	SM_BLK_GET_ID = 8,
	SM_BLK_DISCARD = 11,
	SM_BLK_WRITE_ZEROES = 13,
};

enum sm_blk_status { SM_BLK_OK = 0, SM_BLK_IOERR = 1, SM_BLK_UNSUPPORTED = 2 };

/* Data is behind the header of the readable part, or before the last byte, which takes the status, of the writable. */
struct sm_blk_request {
	uint32_t type;
	uint64_t offset; /* IN, OUT: on the disk, bytes */
	uint64_t bytes;  /* of data */
};

/* What the chain asks for; it has a writable byte.  IN and OUT are of whole sectors that the disk has, and no longer
 * than the limits above allow.  A status other than SM_BLK_OK is the answer. */
uint8_t sm_blk_parse(const struct sm_chain *chain, uint64_t disk_bytes, struct sm_blk_request *ret);
/* Answer a GET_ID; *ret_data: bytes written. */
uint8_t sm_blk_serve_id(const struct sm_chain *chain, const char *serial, uint64_t *ret_data);
/* Put the status where it belongs; the length for the used ring, of `data` bytes before it: what is written without a
 * gap from the start on, 2.7.8.2. */
uint32_t sm_blk_answer(const struct sm_chain *chain, uint8_t status, uint64_t data);

/* Whole transfers between a file and an iovec, which is used up.  -ENODATA: the file is shorter. */
int sm_blk_pread(int fd, struct iovec *iov, unsigned count, uint64_t offset);
int sm_blk_pwrite(int fd, struct iovec *iov, unsigned count, uint64_t offset);

#endif
