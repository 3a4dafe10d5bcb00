/* Plans as Lua tables. */
#ifndef SM_LUA_PLAN_H
#define SM_LUA_PLAN_H

#include "lua/support.h"
#include "plan/plan.h"

/* Pushes one table: arch, vcpus, memory_mib, ram = {{gpa, bytes}..}, mmio_base, mmio_stride, serial = {base, irq},
 * vmgenid = {gpa, irq}, firmware = {gpa, bytes}, cmdline, cpu_disable, and slots = {{kind, index, backed, base, irq,
 * dax = {gpa, bytes} or nil}..}. */
void sm_lua_plan_push(lua_State *L, const struct sm_plan *plan);

/* A configuration from the options table at `index`: arch (default: the host's), vcpus (1), memory_mib (256), blocks,
 * volumes, volume_slots, mounts, mount_slots, net, dax_mib, cmdline, cpu_disable.  Raises for an unknown key or a wrong
 * type; numbers out of range are left to sm_plan_make, which names them.  Strings are borrowed from the table. */
void sm_lua_plan_config(lua_State *L, int index, struct sm_plan_config *ret_config);

/* The same from a table that holds other options besides: unknown keys are the caller's to refuse. */
void sm_lua_plan_read(lua_State *L, int index, struct sm_plan_config *ret_config);

#endif
