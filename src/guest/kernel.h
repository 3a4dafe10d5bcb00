/* What the kernel's headers declare and a small C library does not: the guest is built without them. */
#ifndef SM_GUEST_KERNEL_H
#define SM_GUEST_KERNEL_H

#include <stdint.h>
#include <sys/ioctl.h>

#define SM_AF_VSOCK 40
#define SM_CID_ANY  0xffffffffu
#define SM_CID_HOST 2u

/* linux/vm_sockets.h: struct sockaddr_vm */
struct sm_sockaddr_vm {
	uint16_t family;
	uint16_t reserved;
	uint32_t port;
	uint32_t cid;
	uint8_t flags;
	uint8_t zero[3];
};

/* linux/netlink.h: struct sockaddr_nl */
#define SM_NETLINK_KOBJECT_UEVENT 15
struct sm_sockaddr_nl {
	uint16_t family;
	uint16_t pad;
	uint32_t pid;
	uint32_t groups;
};

/* linux/magic.h */
#define SM_TMPFS_MAGIC 0x01021994
#define SM_RAMFS_MAGIC 0x858458f6
#define SM_PROC_MAGIC  0x9fa0

/* linux/random.h */
#define SM_RNDADDENTROPY _IOW('R', 0x03, int[2])
#define SM_RNDRESEEDCRNG _IO('R', 0x07)

/* asm/ioctls.h: a descriptor for a pseudo-terminal's other end, without a path */
#define SM_TIOCGPTPEER _IO('T', 0x41)

#endif
