/* The guest protocol: what the host and the agent in the guest say to each other.  Shared by both, so
 * it includes nothing but <stdint.h>.
 *
 * One connection is one request.  Everything is frames: an 8-byte header (u32 payload length, u16 type, u16 zero)
 * and the payload; integers are little-endian; a string is a u32 length and that many bytes, none of them NUL.
 * The host opens with OPEN and as many BODY frames as the announced length takes; the body's layout depends on the kind
 * of request (below).  What the guest answers:
 *
 *   EXEC        STARTED, then STDOUT, STDERR, CREDIT, STDIN_CLOSED in any order, then EXIT
 *   CONNECT     OK; after it the connection is a plain byte stream, half-closed on its own in each direction
 *   READ_FILE   DATA frames, then FILE_END
 *   WRITE_FILE  OK when the file is open; the host sends DATA frames and DATA_END; OK when the file is in place
 *   IDENTITY    OK, or with a command to run, what EXEC answers
 *   the others  OK
 *
 * or ERROR in place of any of these, as the last frame.  After its last frame the guest shuts its side and waits for
 * the host to close.  A host that closes earlier takes the request back: an EXEC's processes are killed (but for
 * SM_AGENT_EXEC_KEEP), a half-written file is removed.
 *
 * Standard input is sent against a window of SM_AGENT_STDIN_WINDOW bytes which CREDIT frames refill as the process
 * reads, so SIGNAL and RESIZE never wait behind input that nobody reads.  Output is held back by the socket.
 *
 * When the agent of a booted guest is ready it connects to the host's SM_AGENT_READY_PORT and sends HELLO, once. */
#ifndef SM_AGENT_PROTOCOL_H
#define SM_AGENT_PROTOCOL_H

#include <stdint.h>

/* HELLO carries the agent's version.  OPEN carries that in which its kind of request came to be what it is: an agent
 * knows those from SM_AGENT_VERSION_MIN on, and one in an old snapshot still serves what it knows. */
#define SM_AGENT_VERSION     3 /* 3: MOUNT, INTERPRETER */
#define SM_AGENT_VERSION_MIN 2

#define SM_AGENT_PORT       1024 /* vsock, where the agent listens */
#define SM_AGENT_READY_PORT 1024 /* vsock, where the host does */

#define SM_AGENT_HEADER       8
#define SM_AGENT_FRAME_MAX    65536 /* header and payload */
#define SM_AGENT_PAYLOAD_MAX  (SM_AGENT_FRAME_MAX - SM_AGENT_HEADER)
#define SM_AGENT_REQUEST_MAX  (1u << 20)   /* bytes of all BODY frames of one request */
#define SM_AGENT_STDIN_WINDOW (128u << 10) /* bytes of STDIN that may be under way */
#define SM_AGENT_MESSAGE_MAX  512          /* bytes of an ERROR's message */
#define SM_AGENT_ENTROPY_MAX  512
#define SM_AGENT_HOSTNAME_MAX 64
#define SM_AGENT_ID_BYTES     16
#define SM_AGENT_SECRETS_MAX  64
#define SM_AGENT_LIMITS_MAX   16

/* Frames and their payloads.
 *
 *   OPEN          u16 version, u16 kind, u32 length of the body
 *   BODY, DATA, STDIN, STDOUT, STDERR   bytes
 *   STDIN_EOF, DATA_END, OK             nothing
 *   SIGNAL        u32 number, 1 to 64: to the process group
 *   RESIZE        u16 rows, u16 columns
 *   HELLO         u16 version, string kernel release
 *   ERROR         u32 errno, string message
 *   STARTED       u32 process number
 *   CREDIT        u32 bytes of STDIN more
 *   STDIN_CLOSED  nothing; the process closed its input, more of it is dropped
 *   EXIT          u32 exit code, u32 signal (0: it exited), u32 flags SM_AGENT_EXIT_*,
 *                 u64 duration, u64 user and u64 system time in microseconds, u64 peak RSS in bytes
 *   FILE_END      u64 size, u32 mode (permission bits), u32 uid, u32 gid */
enum sm_agent_frame {
	/* host to guest */
	SM_AGENT_OPEN = 1,
	SM_AGENT_BODY,
	SM_AGENT_STDIN,
	SM_AGENT_STDIN_EOF,
	SM_AGENT_SIGNAL,
	SM_AGENT_RESIZE,
	/* either way */
	SM_AGENT_DATA,
	SM_AGENT_DATA_END,
	/* guest to host */
	SM_AGENT_HELLO = 32,
	SM_AGENT_OK,
	SM_AGENT_ERROR,
	SM_AGENT_STARTED,
	SM_AGENT_STDOUT,
	SM_AGENT_STDERR,
	SM_AGENT_CREDIT,
	SM_AGENT_STDIN_CLOSED,
	SM_AGENT_EXIT,
	SM_AGENT_FILE_END,
};

/* clang-format off */
/* Kinds of request and their bodies.
 *
 *   EXEC        u32 flags SM_AGENT_EXEC_*, u16 rows, u16 columns, u32 timeout in ms (0: none), string cwd (empty: "/"),
 *               string user (empty: root; NAME or UID, then optionally :GROUP or :GID),
 *               u32 count and that many limits: u32 SM_AGENT_LIMIT_*, u64 soft, u64 hard (all ones: none),
 *               u32 count and that many strings argv, u32 count and that many strings NAME=VALUE
 *   CONNECT     string numeric address (empty: 127.0.0.1), u16 TCP port
 *   READ_FILE   string path, u64 most bytes
 *   WRITE_FILE  string path, u32 mode (permission bits)
 *   IDENTITY    u64 wall clock in ns since 1970 (0: keep), string host name (empty: keep),
 *               u32 length and that many bytes of entropy,
 *               u32 length (0: keep what there is, or SM_AGENT_ID_BYTES) and the machine's ID, a UUID,
 *               u32 count and that many secrets: string path, u32 length and that many bytes,
 *               u32 length and that many bytes: the body of an EXEC (0: none), run when all else is done, with
 *               SUPERMACHINE_ID=<the ID> in its environment
 *   MOUNT       string file system's type, string source (a virtiofs tag, or a device), string target (an absolute path,
 *               made where it is missing), string name (the file at the file system's root that is to be at target;
 *               empty: all of it), u32 flags SM_AGENT_MOUNT_*, string options of the file system
 *   INTERPRETER string name of the entry (replaced), string path of the interpreter (absolute), u32 length and that many
 *               bytes of magic, the same of mask: how a program begins that is for it (binfmt_misc)
 *   PING        nothing
 *   SYNC        nothing; written data has reached the disks when OK is sent
 *   DROP_CACHES nothing; the kernel has let go of every page that it only cached when OK is sent
 *   SHUTDOWN    nothing; the machine powers off when the host closes the connection after OK */
/* clang-format on */
enum sm_agent_kind {
	SM_AGENT_EXEC = 1,
	SM_AGENT_CONNECT,
	SM_AGENT_READ_FILE,
	SM_AGENT_WRITE_FILE,
	SM_AGENT_IDENTITY,
	SM_AGENT_PING,
	SM_AGENT_SYNC,
	SM_AGENT_SHUTDOWN,
	SM_AGENT_DROP_CACHES,
	SM_AGENT_MOUNT,
	SM_AGENT_INTERPRETER,
};

static inline uint16_t sm_agent_kind_version(enum sm_agent_kind kind)
{
	return kind >= SM_AGENT_MOUNT ? 3 : 2;
}

#define SM_AGENT_EXEC_TTY          1u
#define SM_AGENT_EXEC_STDIN        2u /* else /dev/null (an open but silent terminal with a tty) */
#define SM_AGENT_EXEC_MERGE_STDERR 4u /* standard error goes where standard output goes */
#define SM_AGENT_EXEC_KEEP         8u /* once started it outlives the connection, and its output is dropped then */
#define SM_AGENT_EXEC_FLAGS        15u

#define SM_AGENT_MOUNT_READONLY 1u
#define SM_AGENT_MOUNT_FLAGS    1u

#define SM_AGENT_EXIT_TIMED_OUT 1u /* killed because the request's timeout had passed */

/* setrlimit(2), but for MEMORY: the process tree's memory, by its cgroup (memory.max; soft is memory.high). */
enum sm_agent_limit_kind {
	SM_AGENT_LIMIT_MEMORY = 1,
	SM_AGENT_LIMIT_ADDRESS_SPACE,
	SM_AGENT_LIMIT_CORE,
	SM_AGENT_LIMIT_CPU, /* seconds */
	SM_AGENT_LIMIT_DATA,
	SM_AGENT_LIMIT_FILE_SIZE,
	SM_AGENT_LIMIT_LOCKED,
	SM_AGENT_LIMIT_OPEN_FILES,
	SM_AGENT_LIMIT_PROCESSES,
	SM_AGENT_LIMIT_STACK,
};

#endif
