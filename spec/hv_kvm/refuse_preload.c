/* Preloaded into a program, it makes this host's KVM one that has less, as SUPERMACHINE_REFUSE says in words:
 *   capability=NUMBER:VALUE  what KVM_CHECK_EXTENSION of it answers
 *   device=TYPE              KVM_CREATE_DEVICE has none of that type ...
 *   has=TYPE                 ... and says, when asked without making one, that it has this
 *   attribute=GROUP          KVM_HAS_DEVICE_ATTR has none of that group
 * (Documentation/virt/kvm/api.rst) */
#include <errno.h>
#include <linux/kvm.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Whether WORD=number is among the words; what follows a colon goes to ret_value. */
static bool says(const char *word, unsigned long number, int *ret_value)
{
	const char *words = getenv("SUPERMACHINE_REFUSE");
	for (size_t len = strlen(word); words && *words; words += strcspn(words, " "), words += strspn(words, " ")) {
		if (strncmp(words, word, len) != 0 || words[len] != '=')
			continue;
		char *end;
		if (strtoul(words + len + 1, &end, 10) != number)
			continue;
		if (ret_value && *end == ':')
			*ret_value = atoi(end + 1);
		return true;
	}
	return false;
}

static int refuse(int code)
{
	errno = code;
	return -1;
}

__attribute__((visibility("default"))) int ioctl(int fd, unsigned long request, ...)
{
	va_list list;
	va_start(list, request);
	void *arg = va_arg(list, void *);
	va_end(list);

	int value = 0;
	if (request == KVM_CHECK_EXTENSION && says("capability", (unsigned long)arg, &value))
		return value;
	if (request == KVM_CREATE_DEVICE) {
		const struct kvm_create_device *device = arg;
		if (says("device", device->type, NULL))
			return refuse(ENODEV);
		if ((device->flags & KVM_CREATE_DEVICE_TEST) && says("has", device->type, NULL))
			return 0;
	}
	if (request == KVM_HAS_DEVICE_ATTR) {
		const struct kvm_device_attr *attribute = arg;
		if (says("attribute", attribute->group, NULL))
			return refuse(ENXIO);
	}
	return (int)syscall(SYS_ioctl, fd, request, arg);
}
