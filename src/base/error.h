/* One error shape for cold paths.
 *
 * A function that can fail returns an int: 0 or positive is success, negative is -errno, formed only
 * where the system call is.  Cold paths end their parameters with `struct sm_error *err`, set once where
 * the failure happens; each caller a floor up may prepend what it was doing. */
#ifndef SM_BASE_ERROR_H
#define SM_BASE_ERROR_H

#include <stdarg.h>
#include <stddef.h>

#define SM_ERROR_MESSAGE_MAX 1024

struct sm_error {
	int code;                           /* positive errno value; 0: no error */
	char message[SM_ERROR_MESSAGE_MAX]; /* NUL-terminated; cut at the end if too long */
};

/* Set *err (NULL is allowed) to errno value `code` (either sign) and a message.  Returns -|code|. */
int sm_error_set(struct sm_error *err, int code, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* The same, with ": <strerror(code)>" appended: for failed system calls. */
int sm_error_sys(struct sm_error *err, int code, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* Prepend "<format>: " to the message.  Returns -err->code, so `return sm_error_context(err, ...)` passes on. */
int sm_error_context(struct sm_error *err, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Set *err (NULL is allowed) to another error, with "<format>: " before its message.  Returns -from->code. */
int sm_error_pass(struct sm_error *err, const struct sm_error *from, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* The symbolic name of an errno value ("ENOENT"), or "EUNKNOWN". */
const char *sm_error_name(int code);

#endif
