/* A PrimeCell UART (ARM DDI 0183, PL011 r1p1: FIFOs of 16), as much of it as a console needs.
 *
 * The ring takes what the guest writes at once, so the transmitter is always empty, and the line is so fast that input
 * has always waited long enough for a receive timeout. */
#ifndef SM_DEVICE_PL011_H
#define SM_DEVICE_PL011_H

#include "device/serial.h"

int sm_pl011_new(struct sm_ring *output, const struct sm_line *line, struct sm_serial **ret_serial,
                 struct sm_error *err);

#endif
