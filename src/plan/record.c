/* The plan as a record.  Everything is written, what follows from the wishes too; get makes the plan anew from the
 * wishes it finds and refuses a record that differs from it in one byte.  So a hostile plan cannot name an address or
 * an IRQ that a plan of this version would not have. */
#include "plan/plan.h"

#include <errno.h>
#include <string.h>

#define PLAN_TAG SM_TAG('P', 'L', 'A', 'N')

/* The largest record: slots of 38 bytes, two strings, some numbers. */
#define RECORD_MAX (64u << 10)

static void put_slot(struct sm_buf *buf, const struct sm_plan_slot *slot)
{
	sm_put_u8(buf, (uint8_t)slot->kind);
	sm_put_u8(buf, slot->backed);
	sm_put_u32(buf, slot->index);
	sm_put_u32(buf, slot->irq);
	sm_put_u64(buf, slot->base);
	sm_put_u64(buf, slot->dax.gpa);
	sm_put_u64(buf, slot->dax.bytes);
}

void sm_plan_put(struct sm_buf *buf, const struct sm_plan *plan)
{
	size_t record = sm_record_begin(buf, PLAN_TAG, SM_PLAN_VERSION);
	sm_put_u8(buf, (uint8_t)plan->arch);
	sm_put_u32(buf, plan->vcpus);
	sm_put_u64(buf, plan->memory_mib);
	sm_put_str(buf, plan->cmdline);
	sm_put_str(buf, plan->cpu_disable);
	sm_put_u32(buf, plan->nram);
	for (unsigned i = 0; i < plan->nram; i++) {
		sm_put_u64(buf, plan->ram[i].gpa);
		sm_put_u64(buf, plan->ram[i].bytes);
	}
	sm_put_u64(buf, plan->mmio_base);
	sm_put_u64(buf, plan->mmio_stride);
	sm_put_u32(buf, plan->serial_irq);
	sm_put_u64(buf, plan->serial_base);
	sm_put_u32(buf, plan->vmgenid_irq);
	sm_put_u64(buf, plan->vmgenid_gpa);
	sm_put_u64(buf, plan->firmware_gpa);
	sm_put_u64(buf, plan->firmware_bytes);
	sm_put_u32(buf, plan->nslots);
	for (unsigned i = 0; i < plan->nslots; i++)
		put_slot(buf, &plan->slots[i]);
	sm_record_end(buf, record);
}

/* One slot's share of the wishes. */
static void wish_for(struct sm_plan_config *config, enum sm_plan_kind kind, bool backed, uint64_t dax_bytes)
{
	switch (kind) {
	case SM_PLAN_BLOCK:
		config->blocks++;
		break;
	case SM_PLAN_VOLUME:
		*(backed ? &config->volumes : &config->volume_slots) += 1;
		break;
	case SM_PLAN_FS:
		*(backed ? &config->mounts : &config->mount_slots) += 1;
		config->dax_mib += dax_bytes / SM_MIB; /* slices are equal, so their sum divides into the same slices */
		break;
	case SM_PLAN_NET:
		config->net = true;
		break;
	case SM_PLAN_VSOCK:
	case SM_PLAN_RNG:
	case SM_PLAN_BALLOON:
		break; /* every plan has them */
	}
}

/* Read the wishes that a record stands for.  The command line is given back whole: its start is not the user's. */
static void get_wishes(struct sm_reader *record, struct sm_plan_config *config, char cmdline[SM_PLAN_CMDLINE_MAX],
                       char cpu_disable[256])
{
	config->arch = sm_get_u8(record);
	config->vcpus = sm_get_u32(record);
	config->memory_mib = sm_get_u64(record);
	sm_get_str(record, cmdline, SM_PLAN_CMDLINE_MAX);
	sm_get_str(record, cpu_disable, 256);
	config->cpu_disable = cpu_disable;
	uint32_t nram = sm_get_u32(record);
	for (uint32_t i = 0; i < nram && !record->failed; i++) {
		sm_get_u64(record);
		sm_get_u64(record);
	}
	for (int i = 0; i < 2; i++)
		sm_get_u64(record); /* mmio_base, mmio_stride */
	sm_get_u32(record);         /* serial_irq */
	sm_get_u64(record);         /* serial_base */
	sm_get_u32(record);         /* vmgenid_irq */
	for (int i = 0; i < 3; i++)
		sm_get_u64(record); /* vmgenid_gpa, firmware_gpa, firmware_bytes */
	uint32_t nslots = sm_get_u32(record);
	for (uint32_t i = 0; i < nslots && !record->failed; i++) {
		enum sm_plan_kind kind = sm_get_u8(record);
		bool backed = sm_get_u8(record);
		sm_get_u32(record); /* index */
		sm_get_u32(record); /* irq */
		sm_get_u64(record); /* base */
		sm_get_u64(record); /* dax.gpa */
		wish_for(config, kind, backed, sm_get_u64(record));
	}
}

/* The user's part of a command line that begins as every plan's of this architecture does, or NULL. */
static const char *user_cmdline(const struct sm_plan *bare, const char *cmdline)
{
	size_t len = strlen(bare->cmdline);
	if (strncmp(cmdline, bare->cmdline, len))
		return NULL;
	if (!cmdline[len])
		return "";
	return cmdline[len] == ' ' && cmdline[len + 1] ? cmdline + len + 1 : NULL;
}

int sm_plan_get(struct sm_reader *reader, struct sm_plan *ret_plan, struct sm_error *err)
{
	size_t start = reader->pos;
	struct sm_reader record;
	int code = sm_record_open(reader, PLAN_TAG, SM_PLAN_VERSION, "plan", &record, err);
	if (code < 0)
		return code;
	struct sm_plan_config config = { 0 };
	char cmdline[SM_PLAN_CMDLINE_MAX], cpu_disable[256];
	get_wishes(&record, &config, cmdline, cpu_disable);
	code = sm_record_close(&record, "plan", err);
	if (code < 0)
		return code;

	code = sm_plan_make(&config, ret_plan, err);
	if (code == 0) {
		config.cmdline = user_cmdline(ret_plan, cmdline);
		if (!config.cmdline)
			return sm_error_set(err, EBADMSG,
			                    "plan: kernel command line '%.64s' is not one this build makes", cmdline);
		code = sm_plan_make(&config, ret_plan, err);
	}
	if (code < 0) {
		sm_error_context(err, "plan");
		if (err)
			err->code = EBADMSG; /* to the reader it is a bad record, whatever is wrong with it */
		return -EBADMSG;
	}

	SM_BUF_CLEANUP struct sm_buf again;
	sm_buf_init(&again, RECORD_MAX);
	sm_plan_put(&again, ret_plan);
	if (sm_buf_failed(&again))
		return sm_error_sys(err, again.failed, "plan");
	if (again.len != reader->pos - start || memcmp(again.data, reader->data + start, again.len) != 0)
		return sm_error_set(err, EBADMSG, "plan: not one that this build makes from the same wishes");
	return 0;
}
