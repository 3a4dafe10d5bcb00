#include "device/serial.h"

#include <errno.h>
#include <stdlib.h>

void *sm_serial_alloc(const struct sm_serial_model *model, size_t size, struct sm_ring *output,
                      const struct sm_line *line)
{
	struct sm_serial *serial = calloc(1, size);
	if (!serial)
		return NULL;
	serial->model = model;
	serial->output = output;
	serial->line = *line;
	pthread_mutex_init(&serial->lock, NULL);
	return serial;
}

void sm_serial_free(struct sm_serial *serial)
{
	if (!serial)
		return;
	pthread_mutex_destroy(&serial->lock);
	free(serial);
}

static void update_line(struct sm_serial *serial)
{
	bool level = serial->model->pending(serial);
	if (level && !serial->level)
		sm_line_raise(&serial->line);
	serial->level = level;
}

uint64_t sm_serial_read(struct sm_serial *serial, uint64_t offset, unsigned size)
{
	(void)size;
	pthread_mutex_lock(&serial->lock);
	uint64_t value = serial->model->read(serial, offset);
	update_line(serial);
	pthread_mutex_unlock(&serial->lock);
	return value;
}

void sm_serial_write(struct sm_serial *serial, uint64_t offset, unsigned size, uint64_t value)
{
	(void)size;
	pthread_mutex_lock(&serial->lock);
	serial->model->write(serial, offset, value);
	update_line(serial);
	pthread_mutex_unlock(&serial->lock);
}

size_t sm_serial_input(struct sm_serial *serial, const void *data, size_t len)
{
	const uint8_t *bytes = data;
	size_t taken = 0;
	pthread_mutex_lock(&serial->lock);
	while (taken < len && serial->model->receive(serial, bytes[taken]))
		taken++;
	update_line(serial);
	pthread_mutex_unlock(&serial->lock);
	return taken;
}

void sm_serial_save(struct sm_serial *serial, struct sm_buf *out)
{
	pthread_mutex_lock(&serial->lock);
	size_t record = sm_record_begin(out, serial->model->tag, serial->model->version);
	serial->model->save(serial, out);
	sm_record_end(out, record);
	pthread_mutex_unlock(&serial->lock);
}

int sm_serial_load(struct sm_serial *serial, struct sm_reader *in, struct sm_error *err)
{
	struct sm_reader record;
	int code = sm_record_open(in, serial->model->tag, serial->model->version, "serial port", &record, err);
	if (code < 0)
		return code;
	pthread_mutex_lock(&serial->lock);
	code = serial->model->load(serial, &record, err);
	if (code >= 0)
		serial->level = serial->model->pending(serial); /* not raised yet: see restored */
	pthread_mutex_unlock(&serial->lock);
	return code;
}

void sm_serial_restored(struct sm_serial *serial)
{
	pthread_mutex_lock(&serial->lock);
	if (serial->level)
		sm_line_raise(&serial->line);
	pthread_mutex_unlock(&serial->lock);
}

/* ---- for models --------------------------------------------------------------------------------------------- */

bool sm_serial_push(struct sm_serial *serial, unsigned capacity, uint8_t byte)
{
	struct sm_serial_fifo *fifo = &serial->fifo;
	if (fifo->count >= capacity)
		return false;
	fifo->bytes[(fifo->head + fifo->count++) % SM_SERIAL_FIFO] = byte;
	return true;
}

uint8_t sm_serial_pop(struct sm_serial *serial)
{
	struct sm_serial_fifo *fifo = &serial->fifo;
	if (fifo->count == 0)
		return 0;
	uint8_t byte = fifo->bytes[fifo->head];
	fifo->head = (fifo->head + 1) % SM_SERIAL_FIFO;
	fifo->count--;
	return byte;
}

void sm_serial_put_fifo(struct sm_buf *out, const struct sm_serial *serial)
{
	const struct sm_serial_fifo *fifo = &serial->fifo;
	sm_put_u32(out, fifo->count);
	for (unsigned i = 0; i < fifo->count; i++)
		sm_put_u8(out, fifo->bytes[(fifo->head + i) % SM_SERIAL_FIFO]);
}

int sm_serial_get_fifo(struct sm_reader *record, unsigned capacity, struct sm_serial_fifo *ret_fifo,
                       struct sm_error *err)
{
	*ret_fifo = (struct sm_serial_fifo){ .count = sm_get_u32(record) };
	if (ret_fifo->count > capacity)
		return sm_error_set(err, EBADMSG, "serial port: %u bytes in a FIFO of %u", ret_fifo->count, capacity);
	for (unsigned i = 0; i < ret_fifo->count; i++)
		ret_fifo->bytes[i] = sm_get_u8(record);
	return 0;
}
