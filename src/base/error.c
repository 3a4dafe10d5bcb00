#include "base/error.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A code of 0 would read as success, so it never leaves here. */
static int positive(int code)
{
	return code ? abs(code) : EIO;
}

/* Parts of a message come from strangers, and people read it on a terminal: no control characters (C1 in UTF-8 too). */
static void write_words(struct sm_error *err, const char *format, va_list args)
{
	vsnprintf(err->message, sizeof err->message, format, args);
	for (unsigned char *at = (unsigned char *)err->message; *at; at++)
		if (*at == 0xc2 && at[1] >= 0x80 && at[1] < 0xa0)
			at[0] = at[1] = '?';
		else if (*at < ' ' || *at == 0x7f)
			*at = '?';
}

static void append_description(struct sm_error *err)
{
	const char *description = strerrordesc_np(err->code);
	size_t used = strlen(err->message);
	snprintf(err->message + used, sizeof err->message - used, ": %s", description ? description : "unknown error");
}

int sm_error_set(struct sm_error *err, int code, const char *format, ...)
{
	code = positive(code);
	if (err) {
		va_list args;
		va_start(args, format);
		err->code = code;
		write_words(err, format, args);
		va_end(args);
	}
	return -code;
}

int sm_error_sys(struct sm_error *err, int code, const char *format, ...)
{
	code = positive(code);
	if (err) {
		va_list args;
		va_start(args, format);
		err->code = code;
		write_words(err, format, args);
		va_end(args);
		append_description(err);
	}
	return -code;
}

static void prepend(struct sm_error *err, const char *format, va_list args)
{
	char old[SM_ERROR_MESSAGE_MAX];
	memcpy(old, err->message, sizeof old);
	write_words(err, format, args);
	size_t used = strlen(err->message);
	snprintf(err->message + used, sizeof err->message - used, ": %s", old);
}

int sm_error_context(struct sm_error *err, const char *format, ...)
{
	if (!err)
		return -EIO;
	va_list args;
	va_start(args, format);
	prepend(err, format, args);
	va_end(args);
	return -positive(err->code);
}

int sm_error_pass(struct sm_error *err, const struct sm_error *from, const char *format, ...)
{
	if (err) {
		*err = *from;
		va_list args;
		va_start(args, format);
		prepend(err, format, args);
		va_end(args);
	}
	return -positive(from->code);
}

const char *sm_error_name(int code)
{
	const char *name = strerrorname_np(abs(code));
	return name ? name : "EUNKNOWN";
}
