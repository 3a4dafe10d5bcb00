/* core.plan, plan_encode, plan_decode: what a machine would be made of, without making it. */
#include "lua/plan.h"

#include <errno.h>
#include <string.h>

#define RECORD_MAX (64u << 10)

static void set_integer(lua_State *L, const char *key, uint64_t value)
{
	lua_pushinteger(L, (lua_Integer)value);
	lua_setfield(L, -2, key);
}

static void set_string(lua_State *L, const char *key, const char *value)
{
	lua_pushstring(L, value);
	lua_setfield(L, -2, key);
}

static void push_pair(lua_State *L, const char *first, uint64_t one, const char *second, uint64_t other)
{
	lua_createtable(L, 0, 2);
	set_integer(L, first, one);
	set_integer(L, second, other);
}

static void push_slot(lua_State *L, const struct sm_plan_slot *slot)
{
	lua_createtable(L, 0, 6);
	set_string(L, "kind", sm_plan_kind_name(slot->kind));
	set_integer(L, "index", slot->index);
	lua_pushboolean(L, slot->backed);
	lua_setfield(L, -2, "backed");
	set_integer(L, "base", slot->base);
	set_integer(L, "irq", slot->irq);
	if (slot->dax.bytes) {
		push_pair(L, "gpa", slot->dax.gpa, "bytes", slot->dax.bytes);
		lua_setfield(L, -2, "dax");
	}
}

void sm_lua_plan_push(lua_State *L, const struct sm_plan *plan)
{
	luaL_checkstack(L, 6, "plan");
	lua_createtable(L, 0, 12);
	set_string(L, "arch", sm_plan_arch_name(plan->arch));
	set_integer(L, "vcpus", plan->vcpus);
	set_integer(L, "memory_mib", plan->memory_mib);
	lua_createtable(L, (int)plan->nram, 0);
	for (unsigned i = 0; i < plan->nram; i++) {
		push_pair(L, "gpa", plan->ram[i].gpa, "bytes", plan->ram[i].bytes);
		lua_rawseti(L, -2, (lua_Integer)i + 1);
	}
	lua_setfield(L, -2, "ram");
	set_integer(L, "mmio_base", plan->mmio_base);
	set_integer(L, "mmio_stride", plan->mmio_stride);
	push_pair(L, "base", plan->serial_base, "irq", plan->serial_irq);
	lua_setfield(L, -2, "serial");
	push_pair(L, "gpa", plan->vmgenid_gpa, "irq", plan->vmgenid_irq);
	lua_setfield(L, -2, "vmgenid");
	push_pair(L, "gpa", plan->firmware_gpa, "bytes", plan->firmware_bytes);
	lua_setfield(L, -2, "firmware");
	set_string(L, "cmdline", plan->cmdline);
	set_string(L, "cpu_disable", plan->cpu_disable);
	lua_createtable(L, (int)plan->nslots, 0);
	for (unsigned i = 0; i < plan->nslots; i++) {
		push_slot(L, &plan->slots[i]);
		lua_rawseti(L, -2, (lua_Integer)i + 1);
	}
	lua_setfield(L, -2, "slots");
}

static unsigned option_count(lua_State *L, int index, const char *key, lua_Integer fallback)
{
	lua_Integer value = sm_lua_option_integer(L, index, key, fallback);
	/* What does not fit is out of every range that the plan knows. */
	return value < 0 || value > UINT32_MAX ? UINT32_MAX : (unsigned)value;
}

static enum sm_plan_arch option_arch(lua_State *L, int index)
{
	const char *name = sm_lua_option_string(L, index, "arch", NULL);
	if (!name)
		return sm_plan_arch_host();
	const enum sm_plan_arch known[] = { SM_PLAN_X86_64, SM_PLAN_AARCH64 };
	for (size_t i = 0; i < sizeof known / sizeof *known; i++)
		if (strcmp(name, sm_plan_arch_name(known[i])) == 0)
			return known[i];
	luaL_error(L, "option 'arch': '%s' or '%s' expected, got '%s'", sm_plan_arch_name(known[0]),
	           sm_plan_arch_name(known[1]), name);
	return SM_PLAN_X86_64;
}

void sm_lua_plan_read(lua_State *L, int index, struct sm_plan_config *ret_config)
{
	lua_Integer dax_mib = sm_lua_option_integer(L, index, "dax_mib", -1);
	*ret_config = (struct sm_plan_config){
		.arch = option_arch(L, index),
		.vcpus = option_count(L, index, "vcpus", 1),
		.memory_mib = option_count(L, index, "memory_mib", 256),
		.blocks = option_count(L, index, "blocks", 0),
		.volume_slots = option_count(L, index, "volume_slots", 0),
		.mount_slots = option_count(L, index, "mount_slots", 0),
		.net = sm_lua_option_boolean(L, index, "net", false),
		.dax_mib = dax_mib < 0 ? SM_PLAN_DAX_DEFAULT : (uint64_t)dax_mib,
		.cmdline = sm_lua_option_string(L, index, "cmdline", NULL),
		.cpu_disable = sm_lua_option_string(L, index, "cpu_disable", NULL),
	};
}

void sm_lua_plan_config(lua_State *L, int index, struct sm_plan_config *ret_config)
{
	static const char *const known[] = {
		"arch",        "vcpus", "memory_mib", "blocks",  "volumes",     "volume_slots", "mounts",
		"mount_slots", "net",   "dax_mib",    "cmdline", "cpu_disable", NULL,
	};
	sm_lua_options_check(L, index, known);
	sm_lua_plan_read(L, index, ret_config);
	ret_config->volumes = option_count(L, index, "volumes", 0);
	ret_config->mounts = option_count(L, index, "mounts", 0);
}

/* plan(config) -> table, or nil, message, code. */
static int plan_make(lua_State *L)
{
	struct sm_plan_config config;
	sm_lua_plan_config(L, 1, &config);
	struct sm_plan plan;
	struct sm_error err = { 0 };
	int code = sm_plan_make(&config, &plan, &err);
	if (code < 0)
		return sm_lua_fail(L, code, &err);
	sm_lua_plan_push(L, &plan);
	return 1;
}

/* plan_encode(config) -> the record as a string. */
static int plan_encode(lua_State *L)
{
	struct sm_plan_config config;
	sm_lua_plan_config(L, 1, &config);
	struct sm_plan plan;
	struct sm_error err = { 0 };
	int code = sm_plan_make(&config, &plan, &err);
	if (code < 0)
		return sm_lua_fail(L, code, &err);
	struct sm_buf buf;
	void *room = sm_lua_room(L, RECORD_MAX, &buf);
	sm_plan_put(&buf, &plan);
	return sm_lua_built(L, room, &buf, buf.failed, NULL);
}

/* plan_decode(string) -> table, or nil, message, code. */
static int plan_decode(lua_State *L)
{
	size_t len;
	const char *data = luaL_checklstring(L, 1, &len);
	struct sm_reader reader;
	sm_reader_init(&reader, data, len);
	struct sm_plan plan;
	struct sm_error err = { 0 };
	int code = sm_plan_get(&reader, &plan, &err);
	if (code == 0 && !sm_reader_at_end(&reader))
		code = sm_error_set(&err, EBADMSG, "plan: %zu bytes after the record", len - reader.pos);
	if (code < 0)
		return sm_lua_fail(L, code, &err);
	sm_lua_plan_push(L, &plan);
	return 1;
}

void sm_lua_plan_open(lua_State *L);

void sm_lua_plan_open(lua_State *L)
{
	static const luaL_Reg functions[] = {
		{ "plan", plan_make },
		{ "plan_encode", plan_encode },
		{ "plan_decode", plan_decode },
		{ NULL, NULL },
	};
	luaL_setfuncs(L, functions, 0);
}
