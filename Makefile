# One non-recursive Makefile.  `make help` lists the targets and the variables.

.DEFAULT_GOAL := all
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules
SHELL := /bin/bash

# Variables a user may set -----------------------------------------------------------------------

HOST_ARCH := $(shell uname -m)
ARCH   ?= $(HOST_ARCH)
# Another architecture than this machine's is compiled by its gcc against a Debian root of its own.
CROSS := $(if $(filter-out $(HOST_ARCH),$(ARCH)),$(ARCH)-linux-gnu-)
ifeq ($(origin CC),default)
CC := $(CROSS)gcc
endif
SAN    ?=
WERROR ?=
V      ?=
BUILD  ?= build$(if $(CROSS),/$(ARCH))$(if $(SAN),/$(SAN))
PREFIX ?= /usr/local
CFLAGS ?= -O2 -g

comma := ,
ARCHES := x86_64 aarch64
ifeq ($(filter $(ARCH),$(ARCHES)),)
$(error no such architecture: $(ARCH) ($(ARCHES) are known))
endif
ifeq ($(CROSS),x86_64-linux-gnu-)
$(error ARCH=x86_64 is built on x86_64 only, and this machine is $(HOST_ARCH))
endif

# Asked for once, and only when something is compiled by this very make.
COMPILES := $(filter-out clean help deps kernel demo test layers format lint asan tsan fuzz,$(or $(MAKECMDGOALS),all))
SYSROOT := $(if $(and $(CROSS),$(COMPILES)),$(shell vendor/cross/sysroot $(ARCH)))
ifneq ($(and $(CROSS),$(COMPILES)),)
ifeq ($(SYSROOT),)
$(error no libraries for $(ARCH))
endif
TARGET := --sysroot=$(SYSROOT)
PKG_CONFIG ?= PKG_CONFIG_SYSROOT_DIR=$(SYSROOT) PKG_CONFIG_LIBDIR=$(SYSROOT)/usr/lib/$(ARCH)-linux-gnu/pkgconfig pkg-config
MUSL_CC ?= $(CC) $(TARGET) -specs $(SYSROOT)/usr/lib/$(ARCH)-linux-musl/musl-gcc.specs
endif
PKG_CONFIG ?= pkg-config
MUSL_CC ?= musl-gcc

# Flags ------------------------------------------------------------------------------------------

LIBRARIES := libcrypto zlib libisal libcjson
# Only their headers: they are loaded when they are used (base/library.h).
LATE      := libcurl libarchive

WARNINGS := -Wall -Wextra -Wshadow -Wmissing-prototypes $(if $(WERROR),-Werror)
SANITIZE := $(if $(SAN),-fsanitize=$(SAN)$(if $(filter address,$(SAN)),$(comma)undefined) -fno-omit-frame-pointer)
CPPFLAGS_ALL = -Isrc -D_GNU_SOURCE -DSM_PREFIX='"$(PREFIX)"' $(shell $(PKG_CONFIG) --cflags lua5.4 $(LIBRARIES) $(LATE) 2>/dev/null)
CFLAGS_ALL = $(TARGET) -std=gnu17 $(CFLAGS) -fPIC -fvisibility=hidden -pthread $(WARNINGS) $(SANITIZE)
LIBS = -Wl,--as-needed $(shell $(PKG_CONFIG) --libs $(LIBRARIES) 2>/dev/null) -lfdt -lm -ldl -pthread
# Only some versions of pkg-config put the other root before a variable.
LUA_STATIC = $(SYSROOT)$(patsubst $(SYSROOT)%,%,$(shell $(PKG_CONFIG) --variable=libdir lua5.4 2>/dev/null))/liblua5.4.a

CPPFLAGS_ALL := $(if $(COMPILES),$(CPPFLAGS_ALL))
LIBS         := $(if $(COMPILES),$(LIBS))
LUA_STATIC   := $(if $(COMPILES),$(LUA_STATIC))

Q := $(if $(V),,@)
say = $(if $(V),,@printf '  %-5s %s\n' '$(1)' '$(2)')

# Sources: architecture and back end are chosen by file ---------------------------------------------

ROOMS  := base plan oci memory hv fuse net rootfs device arch $(addprefix arch/,$(ARCHES)) virtio hv_kvm machine snapshot agent pool
OTHER_ARCH := $(foreach arch,$(filter-out $(ARCH),$(ARCHES)),$(foreach room,plan hv_kvm machine,src/$(room)/%_$(arch).c) spec/%_$(arch).c)

ROOM_SOURCES  := $(filter-out $(OTHER_ARCH),$(foreach room,$(ROOMS),$(sort $(wildcard src/$(room)/*.c))))
LUA_SOURCES   := $(sort $(wildcard src/lua/*.c))
GUEST_SOURCES := $(sort $(wildcard src/guest/*.c))
SPEC_PRELOADS := $(sort $(wildcard spec/*/*_preload.c))
FUZZ_SOURCES  := $(sort $(wildcard spec/fuzz/*.c))
SUITE_SOURCES := $(sort $(wildcard spec/fs/*.c))
SPEC_STATIC   := spec/perf/fs_load.c
SPEC_SOURCES  := $(filter-out $(OTHER_ARCH) $(SPEC_PRELOADS) $(FUZZ_SOURCES) $(SUITE_SOURCES) $(SPEC_STATIC),$(sort $(wildcard spec/*/*.c)))
ALL_C         := $(sort $(wildcard src/*.[ch] src/*/*.[ch] src/*/*/*.[ch] spec/*/*.[ch]))

object = $(patsubst src/%.c,$(BUILD)/obj/%.o,$(1))
ROOM_OBJECTS  := $(call object,$(ROOM_SOURCES))
LUA_OBJECTS   := $(call object,$(LUA_SOURCES))
MAIN_OBJECT   := $(BUILD)/obj/main.o
GUEST_OBJECTS := $(patsubst src/%.c,$(BUILD)/obj/%.o,$(GUEST_SOURCES))
SPEC_PROGRAMS := $(patsubst %.c,$(BUILD)/%,$(SPEC_SOURCES)) $(patsubst %.c,$(BUILD)/%.so,$(SPEC_PRELOADS))
SUITE_OBJECTS := $(patsubst %.c,$(BUILD)/obj/%.o,$(SUITE_SOURCES))
SUITE         := $(BUILD)/spec/fs/posix
STATIC_PROGRAMS := $(SUITE) $(patsubst %.c,$(BUILD)/%,$(wildcard $(SPEC_STATIC)))

EXE     := $(BUILD)/supermachine
MODULE  := $(BUILD)/lib/supermachine/core.so
GUEST   := $(if $(GUEST_SOURCES),$(BUILD)/supermachine-guest)
ARCHIVE := $(BUILD)/libsupermachine.a

.PHONY: all
all: $(EXE) $(MODULE) $(GUEST) $(SPEC_PROGRAMS) $(STATIC_PROGRAMS)

# A changed compiler or flag rebuilds what it made; a missing package is named before any compiler error.

$(BUILD)/.packages: vendor/packages vendor/missing
	@mkdir -p $(@D)
	@vendor/missing build $(if $(CROSS),cross,library)
	@touch $@

FLAGS := $(CC) $(CPPFLAGS_ALL) $(CFLAGS_ALL) $(LIBS) $(ARCH) $(MUSL_CC)
.PHONY: force
$(BUILD)/.flags: force
	@mkdir -p $(@D)
	@printf '%s\n' '$(subst ','\'',$(FLAGS))' | cmp -s - $@ || printf '%s\n' '$(subst ','\'',$(FLAGS))' >$@

$(GUEST_OBJECTS): $(BUILD)/obj/guest/%.o: src/guest/%.c $(BUILD)/.flags | $(BUILD)/.packages
	@mkdir -p $(@D)
	$(call say,MUSL,$<)
	$(Q)$(MUSL_CC) -std=gnu17 -Os -g -Isrc -D_GNU_SOURCE $(WARNINGS) -fno-pie -ffunction-sections -fdata-sections \
		-idirafter $(SYSROOT)/usr/include -idirafter $(SYSROOT)/usr/include/$(ARCH)-linux-gnu -MMD -MP -c -o $@ $<

$(BUILD)/obj/%.o: src/%.c $(BUILD)/.flags | $(BUILD)/.packages
	@mkdir -p $(@D)
	$(call say,CC,$<)
	$(Q)$(CC) $(CPPFLAGS_ALL) $(CFLAGS_ALL) -MMD -MP -c -o $@ $<

# Lua is whole and visible in the executable, so that any Lua C module can be loaded into it.
$(EXE): $(MAIN_OBJECT) $(LUA_OBJECTS) $(ROOM_OBJECTS)
	$(call say,LD,$@)
	$(Q)$(CC) $(CFLAGS_ALL) -o $@ $^ -Wl,-E -Wl,--whole-archive $(LUA_STATIC) -Wl,--no-whole-archive $(LDFLAGS) $(LIBS)

# The same objects; the Lua symbols are those of the process that loads it.  Never unloaded: threads of a machine
# that is being closed may still be in it.
$(MODULE): $(LUA_OBJECTS) $(ROOM_OBJECTS)
	@mkdir -p $(@D)
	$(call say,LD,$@)
	$(Q)$(CC) $(CFLAGS_ALL) -shared -Wl,-z,nodelete -o $@ $^ $(LDFLAGS) $(LIBS)

$(BUILD)/supermachine-guest: $(GUEST_OBJECTS)
	$(call say,LD,$@)
	$(Q)$(MUSL_CC) -static -no-pie -Wl,--gc-sections -o $@ $^
	$(Q)$(CROSS)strip $@

$(ARCHIVE): $(ROOM_OBJECTS)
	$(call say,AR,$@)
	$(Q)rm -f $@ && $(CROSS)ar rcs $@ $^

# Programs of the specs and benchmarks: one C file each, over the rooms; what is preloaded stands alone.
$(filter %.so,$(SPEC_PROGRAMS)): $(BUILD)/%.so: %.c $(BUILD)/.flags
	@mkdir -p $(@D)
	$(call say,CC,$<)
	$(Q)$(CC) $(CPPFLAGS_ALL) $(CFLAGS_ALL) -fno-sanitize=all -MMD -MP -MF $@.d -shared -o $@ $<

$(filter-out %.so,$(SPEC_PROGRAMS)): $(BUILD)/%: %.c $(BUILD)/.flags $(ARCHIVE)
	@mkdir -p $(@D)
	$(call say,CC,$<)
	$(Q)$(CC) $(CPPFLAGS_ALL) $(CFLAGS_ALL) -MMD -MP -MF $@.d -o $@ $< $(ARCHIVE) $(LDFLAGS) $(LIBS)

# What specs run in guests: static, by the guest's own C library.  The file-system suite's calls go by its mutants.
MUSL_SPEC := $(MUSL_CC) -std=gnu17 -O1 -g -D_GNU_SOURCE $(WARNINGS) -fno-pie \
	-idirafter $(SYSROOT)/usr/include -idirafter $(SYSROOT)/usr/include/$(ARCH)-linux-gnu
WRAPPED   := $(shell sed -s -n 's/^WRAP(\(.*\)).*/\1/p' spec/fs/mutants_*.c)

$(SUITE_OBJECTS): $(BUILD)/obj/spec/%.o: spec/%.c $(BUILD)/.flags | $(BUILD)/.packages
	@mkdir -p $(@D)
	$(call say,MUSL,$<)
	$(Q)$(MUSL_SPEC) -MMD -MP -c -o $@ $<

$(SUITE): $(SUITE_OBJECTS)
	@mkdir -p $(@D)
	$(call say,LD,$@)
	$(Q)$(MUSL_CC) -static -no-pie -o $@ $(SUITE_OBJECTS) $(WRAPPED:%=-Wl$(comma)--wrap=%)

$(filter-out $(SUITE),$(STATIC_PROGRAMS)): $(BUILD)/%: %.c $(BUILD)/.flags | $(BUILD)/.packages
	@mkdir -p $(@D)
	$(call say,MUSL,$<)
	$(Q)$(MUSL_SPEC) -MMD -MP -MF $@.d -static -no-pie -o $@ $<

-include $(ROOM_OBJECTS:.o=.d) $(LUA_OBJECTS:.o=.d) $(MAIN_OBJECT:.o=.d) $(GUEST_OBJECTS:.o=.d) $(SUITE_OBJECTS:.o=.d) \
	$(SPEC_PROGRAMS:=.d) $(STATIC_PROGRAMS:=.d)

# What a stranger types ----------------------------------------------------------------------------

.PHONY: deps kernel lab-shell demo test test-direct test-lab bench plot
deps:
	vendor/missing --install

kernel:
	vendor/kernel/build $(BUILD)/vmlinux $(ARCH)

# Guests of another architecture get Debian's kernel, unless `make kernel' was run for it: ten minutes less.
OWN_KERNEL := $(if $(CROSS),,kernel)
# What runs Linux guests: in the emulated host where this machine's KVM does not, or is another architecture's.
IN_LAB := vendor/testhost/anywhere $(ARCH) $(BUILD)

lab-shell: all
	TESTHOST_ARCH=$(ARCH) vendor/testhost/shell

# Real images, and machines of them.
demo:
	@vendor/missing --install
	@$(MAKE) --no-print-directory all $(OWN_KERNEL)
	vendor/images/make $(BUILD)/images $(ARCH)
	@$(IN_LAB) '$(EXE) examples/demo.lua $(BUILD)/images $(BUILD)/demo'

# The other architecture that this machine can build for is tested, too.
ALSO := $(if $(filter x86_64,$(ARCH)),aarch64)
test:
	@vendor/missing --install
	@$(MAKE) --no-print-directory all $(OWN_KERNEL)
	@$(foreach arch,$(ALSO),$(MAKE) --no-print-directory ARCH=$(arch) BUILD=$(BUILD)/$(arch) CC=$(arch)-linux-gnu-gcc SAN= all &&) true
	@spec/tiers $(if $(CROSS),,direct:$(ARCH):$(BUILD)) lab:$(ARCH):$(BUILD) $(foreach arch,$(ALSO),lab:$(arch):$(BUILD)/$(arch))

test-direct: all
	@vendor/missing test direct
	@$(if $(CROSS),echo 'the direct tier of $(ARCH) runs on such a machine only: make test-lab ARCH=$(ARCH)'; false,spec/tiers direct:$(ARCH):$(BUILD))

test-lab: all $(OWN_KERNEL)
	@vendor/missing test direct
	@spec/tiers lab:$(ARCH):$(BUILD)

# What times the machine itself, without a Linux guest, runs here where KVM is here, and beside the rest otherwise.
BENCH_LAB := $(EXE) spec/perf/run.lua --tier=lab --out=$(BUILD)/bench-lab.json
BENCH     := $(EXE) spec/perf/run.lua --merge=$(BUILD)/bench-lab.json --out=$(BUILD)/bench.json
bench: all $(OWN_KERNEL)
	vendor/images/make $(BUILD)/images $(ARCH) >/dev/null
	@rm -f $(BUILD)/bench-lab.json
	@if [ -z '$(CROSS)' ] && [ -w /dev/kvm ]; then $(IN_LAB) '$(BENCH_LAB)'; lab=$$?; $(BENCH) && exit $$lab; \
	else $(IN_LAB) '$(BENCH_LAB); lab=$$?; $(BENCH) && exit $$lab'; fi

plot: $(EXE)
	@vendor/missing plot
	@mkdir -p docs
	$(EXE) spec/perf/plot.lua $(BUILD)/bench.json docs/recycle.png

# What machines argue about ------------------------------------------------------------------------

.PHONY: layers format lint asan tsan
layers:
	@lua5.4 spec/support/layers src

format:
	clang-format -i $(ALL_C)

lint:
	@vendor/missing lint
	@spec/support/lint

# The direct tier under the sanitizers.
asan:
	+$(MAKE) SAN=address test-direct

tsan:
	+$(MAKE) SAN=thread test-direct

# Each fuzzer for so many seconds, from its seeds on; what it finds stays in $(BUILD)/fuzz.
FUZZ_SECONDS ?= 20
FUZZERS      := $(patsubst spec/%.c,%,$(FUZZ_SOURCES))
.PHONY: fuzz fuzzers
fuzz:
	@vendor/missing fuzz
	+@$(MAKE) --no-print-directory CC=clang BUILD=$(BUILD)/fuzz SAN=fuzzer-no-link,address,undefined fuzzers
	@spec/support/fuzz $(BUILD)/fuzz $(FUZZ_SECONDS) $(notdir $(FUZZERS))

fuzzers: $(FUZZERS:%=$(BUILD)/spec/%)
$(FUZZERS:%=$(BUILD)/spec/%): $(BUILD)/spec/%: spec/%.c $(BUILD)/.flags $(ARCHIVE)
	@mkdir -p $(@D)
	$(call say,CC,$<)
	$(Q)$(CC) $(CPPFLAGS_ALL) $(CFLAGS_ALL) -fsanitize=fuzzer -MMD -MP -MF $@.d -o $@ $< $(ARCHIVE) $(LDFLAGS) $(LIBS)

# ---------------------------------------------------------------------------------------------------

.PHONY: install clean help
install: all
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/lib/supermachine
	install -d $(DESTDIR)$(PREFIX)/lib/lua/5.4/supermachine $(DESTDIR)$(PREFIX)/share/lua/5.4
	install $(EXE) $(DESTDIR)$(PREFIX)/bin/supermachine
	install -m 644 $(MODULE) $(DESTDIR)$(PREFIX)/lib/lua/5.4/supermachine/core.so
	$(if $(GUEST),install $(GUEST) $(DESTDIR)$(PREFIX)/lib/supermachine/supermachine-guest)
	cd lua && find supermachine -name '*.lua' -exec install -D -m 644 '{}' '$(DESTDIR)$(PREFIX)/share/lua/5.4/{}' ';'

clean:
	rm -rf $(BUILD)

help:
	@echo 'make [all]        $(BUILD)/supermachine, the Lua module, the guest'"'"'s init'
	@echo 'make deps         install what is missing, with apt (vendor/packages)'
	@echo 'make kernel       build the guest kernel, once; cached'
	@echo 'make demo         pull, bake, restore and run real images, with times'
	@echo 'make test         test-direct, test-lab, and on x86_64 test-lab of ARCH=aarch64'
	@echo 'make test-direct  the suite on this machine, without Linux guests'
	@echo 'make test-lab     the specs with guests, in the emulated host where KVM here is not fit'
	@echo 'make bench        medians, and $(BUILD)/bench.json;  make plot  draws docs/recycle.png from it'
	@echo 'make layers       which room includes which'
	@echo 'make lint         luacheck, clang-format, banned calls;  make format  repairs the formatting'
	@echo 'make asan tsan    the direct tier under sanitizers'
	@echo 'make fuzz         each fuzzer for FUZZ_SECONDS=20'
	@echo 'make lab-shell    a shell in the emulated host'
	@echo 'make install      below PREFIX (and DESTDIR);  make clean'
	@echo
	@echo 'ARCH=aarch64 on x86_64: compiled by gcc-aarch64-linux-gnu into build/aarch64, run in an emulated Arm host'
	@echo 'variables: CC=gcc|clang BUILD=build SAN=address|thread WERROR=1 V=1 ARCH=x86_64|aarch64 PREFIX=/usr/local CFLAGS LDFLAGS'
