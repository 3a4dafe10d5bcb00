#include "init.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PREFIX      "supermachine."
#define CMDLINE_MAX 8192

static void vfail(struct sm_failure *failure, const char *format, va_list args)
{
	vsnprintf(failure->message, sizeof failure->message, format, args);
}

int sm_fail(struct sm_failure *failure, const char *format, ...)
{
	va_list args;
	va_start(args, format);
	vfail(failure, format, args);
	va_end(args);
	return -1;
}

int sm_fail_errno(struct sm_failure *failure, const char *format, ...)
{
	int code = errno;
	va_list args;
	va_start(args, format);
	vfail(failure, format, args);
	va_end(args);
	size_t len = strlen(failure->message);
	snprintf(failure->message + len, sizeof failure->message - len, ": %s", strerror(code));
	failure->code = code;
	return -1;
}

static int set_text(char *out, size_t size, const char *name, const char *value, struct sm_failure *failure)
{
	if (strlen(value) >= size)
		return sm_fail(failure, PREFIX "%s: value is too long", name);
	memcpy(out, value, strlen(value) + 1);
	return 0;
}

static int set_number(unsigned *out, const char *name, const char *value, struct sm_failure *failure)
{
	char *end;
	errno = 0;
	unsigned long number = strtoul(value, &end, 10);
	if (errno || end == value || *end || number > 1u << 30)
		return sm_fail(failure, PREFIX "%s=%.64s: not a number in range", name, value);
	*out = (unsigned)number;
	return 0;
}

static int set_option(struct sm_options *options, const char *name, const char *value, struct sm_failure *failure)
{
	if (!strcmp(name, "root"))
		return set_text(options->root, sizeof options->root, name, value, failure);
	if (!strcmp(name, "layers"))
		return set_number(&options->layers, name, value, failure);
	if (!strcmp(name, "upper"))
		return set_text(options->upper, sizeof options->upper, name, value, failure);
	if (!strcmp(name, "upper_mib"))
		return set_number(&options->upper_mib, name, value, failure);
	if (!strcmp(name, "hostname"))
		return set_text(options->hostname, sizeof options->hostname, name, value, failure);
	return sm_fail(failure, "kernel command line: unknown option " PREFIX "%.64s", name);
}

int sm_options_read(struct sm_options *ret_options, struct sm_failure *failure)
{
	*ret_options = (struct sm_options){ .hostname = "supermachine" };
	char line[CMDLINE_MAX];
	int fd = open("/proc/cmdline", O_RDONLY | O_CLOEXEC);
	ssize_t len = fd < 0 ? -1 : read(fd, line, sizeof line - 1);
	if (len < 0)
		return sm_fail_errno(failure, "read /proc/cmdline");
	close(fd);
	line[len] = 0;
	char *rest = line;
	for (char *word = strtok_r(line, " \n", &rest); word; word = strtok_r(NULL, " \n", &rest)) {
		if (strncmp(word, PREFIX, strlen(PREFIX)))
			continue;
		char *name = word + strlen(PREFIX), *value = strchr(name, '=');
		if (!value)
			return sm_fail(failure, "kernel command line: %.64s has no value", word);
		*value++ = 0;
		if (set_option(ret_options, name, value, failure) < 0)
			return -1;
	}
	return 0;
}
