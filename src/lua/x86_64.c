/* core.x86_acpi, x86_cpuid_shape, x86_cpuid_covered: the x86_64 folder's pure functions. */
#include "arch/x86_64/acpi.h"
#include "arch/x86_64/cpuid.h"
#include "lua/plan.h"

#define TABLES_MAX (128u << 10)

/* x86_acpi(config) -> what lies at the plan's firmware area, RSDP first; or nil, message, code. */
static int x86_acpi(lua_State *L)
{
	struct sm_plan_config config;
	sm_lua_plan_config(L, 1, &config);
	struct sm_plan plan;
	struct sm_error err = { 0 };
	int code = sm_plan_make(&config, &plan, &err);
	if (code < 0)
		return sm_lua_fail(L, code, &err);
	struct sm_buf buf;
	void *room = sm_lua_room(L, TABLES_MAX, &buf);
	code = sm_x86_acpi_build(&plan, &buf, &err);
	return sm_lua_built(L, room, &buf, code, &err);
}

/* An entry is a list of 7 numbers: leaf, subleaf, flags, eax, ebx, ecx, edx. */
#define ENTRY_NUMBERS 7

static size_t check_entries(lua_State *L, int index, struct sm_x86_cpuid_entry entries[SM_X86_CPUID_MAX])
{
	luaL_checktype(L, index, LUA_TTABLE);
	lua_Integer count = luaL_len(L, index);
	luaL_argcheck(L, count <= SM_X86_CPUID_MAX, index, "too many entries");
	for (lua_Integer i = 0; i < count; i++) {
		uint32_t numbers[ENTRY_NUMBERS];
		if (lua_geti(L, index, i + 1) != LUA_TTABLE)
			luaL_error(L, "entry %d: table expected", (int)i + 1);
		for (int j = 0; j < ENTRY_NUMBERS; j++) {
			lua_geti(L, -1, j + 1);
			numbers[j] = (uint32_t)luaL_checkinteger(L, -1);
			lua_pop(L, 1);
		}
		lua_pop(L, 1);
		entries[i] = (struct sm_x86_cpuid_entry){ numbers[0], numbers[1], numbers[2], numbers[3],
			                                  numbers[4], numbers[5], numbers[6] };
	}
	return (size_t)count;
}

static void push_entries(lua_State *L, const struct sm_x86_cpuid_entry *entries, size_t count)
{
	lua_createtable(L, (int)count, 0);
	for (size_t i = 0; i < count; i++) {
		const uint32_t numbers[ENTRY_NUMBERS] = { entries[i].leaf, entries[i].subleaf, entries[i].flags,
			                                  entries[i].eax,  entries[i].ebx,     entries[i].ecx,
			                                  entries[i].edx };
		lua_createtable(L, ENTRY_NUMBERS, 0);
		for (int j = 0; j < ENTRY_NUMBERS; j++) {
			lua_pushinteger(L, numbers[j]);
			lua_rawseti(L, -2, j + 1);
		}
		lua_rawseti(L, -2, (lua_Integer)i + 1);
	}
}

/* x86_cpuid_shape(host entries, {tsc_deadline, vcpus, vcpu, cpu_disable}) -> entries, or nil, message, code. */
static int x86_cpuid_shape(lua_State *L)
{
	static const char *const known[] = { "tsc_deadline", "vcpus", "vcpu", "cpu_disable", NULL };
	struct sm_x86_cpuid_entry host[SM_X86_CPUID_MAX], shaped[SM_X86_CPUID_MAX];
	size_t host_count = check_entries(L, 1, host), count = 0;
	sm_lua_options_check(L, 2, known);
	lua_Integer vcpus = sm_lua_option_integer(L, 2, "vcpus", 1), vcpu = sm_lua_option_integer(L, 2, "vcpu", 0);
	luaL_argcheck(L, vcpus >= 1 && vcpus <= SM_PLAN_VCPUS_MAX && vcpu >= 0 && vcpu < vcpus, 2, "vcpus or vcpu");
	struct sm_error err = { 0 };
	int code = sm_x86_cpuid_shape(host, host_count, sm_lua_option_boolean(L, 2, "tsc_deadline", true),
	                              (unsigned)vcpus, (unsigned)vcpu, sm_lua_option_string(L, 2, "cpu_disable", NULL),
	                              shaped, SM_X86_CPUID_MAX, &count, &err);
	if (code < 0)
		return sm_lua_fail(L, code, &err);
	push_entries(L, shaped, count);
	return 1;
}

/* x86_cpuid_covered(saved entries, host entries, tsc_deadline) -> true, or nil, message, code. */
static int x86_cpuid_covered(lua_State *L)
{
	struct sm_x86_cpuid_entry saved[SM_X86_CPUID_MAX], host[SM_X86_CPUID_MAX];
	size_t saved_count = check_entries(L, 1, saved), host_count = check_entries(L, 2, host);
	luaL_checktype(L, 3, LUA_TBOOLEAN);
	struct sm_error err = { 0 };
	int code = sm_x86_cpuid_covered(saved, saved_count, host, host_count, lua_toboolean(L, 3), &err);
	if (code < 0)
		return sm_lua_fail(L, code, &err);
	lua_pushboolean(L, true);
	return 1;
}

void sm_lua_x86_64_open(lua_State *L);

void sm_lua_x86_64_open(lua_State *L)
{
	static const luaL_Reg functions[] = {
		{ "x86_acpi", x86_acpi },
		{ "x86_cpuid_shape", x86_cpuid_shape },
		{ "x86_cpuid_covered", x86_cpuid_covered },
		{ NULL, NULL },
	};
	luaL_setfuncs(L, functions, 0);
}
