/* A 16550A serial port (National Semiconductor PC16550D), as much of it as a console needs.
 *
 * The ring takes what the guest writes at once, so the transmitter is always empty. */
#ifndef SM_DEVICE_SERIAL8250_H
#define SM_DEVICE_SERIAL8250_H

#include "device/serial.h"

#define SM_SERIAL8250_PORTS 8 /* registers, one byte each */

int sm_serial8250_new(struct sm_ring *output, const struct sm_line *line, struct sm_serial **ret_serial,
                      struct sm_error *err);

#endif
