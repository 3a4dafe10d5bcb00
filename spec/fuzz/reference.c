/* References: what is taken has one spelling, which is taken again and stays. */
#include "oci/reference.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	static char text[SM_OCI_REFERENCE_TEXT + 1], first[SM_OCI_REFERENCE_TEXT], second[SM_OCI_REFERENCE_TEXT];
	if (len >= sizeof text)
		return 0;
	memcpy(text, data, len);
	text[len] = '\0';
	struct sm_oci_reference reference;
	if (sm_oci_reference_parse(text, &reference, NULL) < 0)
		return 0;
	sm_oci_reference_format(&reference, first);
	struct sm_oci_reference again;
	if (sm_oci_reference_parse(first, &again, NULL) < 0)
		abort();
	sm_oci_reference_format(&again, second);
	if (strcmp(first, second) != 0)
		abort();
	return 0;
}
