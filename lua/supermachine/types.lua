---@meta supermachine
-- The public API, typed (LuaCATS): read by language servers, never loaded.
--
-- What can fail at run time returns nil, message, code (an errno name such as "ENOENT"); misuse raises.  Handles
-- close with <close>, :close() or the collector; any other method on a closed handle raises.  Inside sm.run, everything that
-- waits yields to the other tasks.

---@class supermachine
---@field version string
---@field image supermachine.image.module
---@field vm supermachine.vm.module
---@field snapshot supermachine.snapshot.module
---@field store supermachine.store.module
---@field pool supermachine.pool.module
local sm = {}

--- Run fn(...) as a task, with every task that is started in it; returns fn's results when all have ended.
--- An error in any task closes the others and is raised here.
---@param fn fun(...): ...
---@return any ...
function sm.run(fn, ...) end

--- Start a task of the run under way.
---@param fn fun(...): ...
---@return supermachine.task
function sm.go(fn, ...) end

---@class supermachine.task
local task = {}
---@param options? { timeout_ms?: integer }
---@return any ... # the task's results
function task:wait(options) end

---@class supermachine.image.module
local image_module = {}

---@class supermachine.pull_options
---@field store? string      folder of the store; default $XDG_DATA_HOME/supermachine
---@field platform? string   "linux/arm64"; default the host's
---@field policy? "always"|"missing"|"never"
---@field insecure? boolean  plain HTTP to hosts other than loopback
---@field ca_file? string    PEM file of the certificate authorities to trust, and no others; default the system's and certs.d
---@field username? string   with password, for the registry; default what podman and docker logins left (containers-auth.json(5))
---@field password? string
---@field config? string     file of mirrors and the like; default $XDG_CONFIG_HOME/supermachine/config.json
---@field blob_max_bytes? integer   a layer's most
---@field parallel? integer  layers at once; default 4
---@field retries? integer   of what broke off or is overloaded, in a row without progress; default 5
---@field stall_ms? integer  a transfer of less than 1 KiB/s for so long is given up and tried again; default 60000
---@field rootfs? boolean  make the layers EROFS files too, while they come in; default false
---@field timeout_ms? integer  of the whole
---@field on_progress? fun(event: supermachine.pull_event)

---@class supermachine.pull_event
---@field index integer  of the layer, from 1
---@field digest string
---@field state "waiting"|"fetching"|"retrying"|"done"|"reused"|"failed"
---@field done integer   bytes
---@field total integer

--- Fetch an image; every byte is checked.  "nginx:1.27", "https://host/name@sha256:..", "oci:DIR[:TAG]",
--- "oci-archive:FILE[:TAG]", "docker-archive:FILE[:NAME[:TAG]]", "dir:PATH"; ":@0" is the first image in a layout or archive.
---@param reference string
---@param options? supermachine.pull_options
---@return supermachine.image?, table|string counts_or_message, string? code
function image_module.pull(reference, options) end

---@class supermachine.image
local image = {}
---@return string # "sha256:.." of the manifest
function image:digest() end
---@return string
function image:config_digest() end
---@return string
function image:reference() end
---@return string # "linux/amd64"
function image:platform() end
---@return string # path of the store
function image:store() end
---@return table # the config document (OCI image-spec, config.md)
function image:config() end
---@return supermachine.image_process # how the image wants to be run
function image:process() end
---@return { digest: string, diff_id: string, media_type: string, size: integer }[] # lowest first
function image:layers() end
--- Every layer as an EROFS file, made once; `threads` layers at a time, by default one a processor.
---@param options? { threads?: integer }
---@return { path: string, image_bytes: integer, reused: boolean }[]?, string? message, string? code
function image:rootfs(options) end

---@class supermachine.image_process  absent strings are "", absent lists are empty
---@field entrypoint string[]
---@field cmd string[]
---@field env string[]            "NAME=VALUE"
---@field workdir string
---@field user string             names are resolved in the image's own /etc/passwd and /etc/group, when a process starts
---@field stop_signal string
---@field volumes string[]        "/data"
---@field exposed_ports string[]  "80/tcp"
---@field labels table<string, string>
---@field healthcheck? { test: string[], interval_ms?: number, timeout_ms?: number, start_period_ms?: number, start_interval_ms?: number, retries?: integer }

---@class supermachine.volume    a file of the host as a disk of the guest: docs/volumes.md
---@field host string            a regular file; made, sparse, where it is missing or empty
---@field guest? string          where the guest mounts it (ext4); needed unless format is false
---@field size_mib? integer      of a new one; a larger number grows it, a smaller one is refused; default its size
---@field readonly? boolean      default false
---@field format? boolean        it holds ext4, or nothing and gets it; default true
---@field overlay? boolean       what the machine writes is its own, and the file is only read; default false

--- A host folder, or a regular file, in a guest: see docs/mounts.md.
---@class supermachine.mount
---@field host string             a path here
---@field guest string            an absolute path there; made where it is missing
---@field readonly? boolean
---@field tag? string             of the device, 1 to 36 bytes; default "mount" and the slot's index; not for slots that a restore backs
---@field cache? "strict"|"auto"|"always"  how long the guest trusts what it knows: not at all (default), 1 s, for good
---@field symlinks? "opaque"|"deny"|"follow"  bytes that the host never follows (default); none may be made; the host follows them, out of the folder too
---@field owners? "squash"|"passthrough"|{ guest: integer, host: integer, count: integer }[]  default "squash": the guest's root is this user
---@field xattrs? string[]        names that pass, "user.*"; default { "user.*" }
---@field writeback? boolean      the guest may gather writes; not with cache = "strict"
---@field locks? "guest"|"host"   locks are the guest's own affair (default), or taken here, too
---@field dax? boolean            files are mapped into the guest, not copied; default true where there is a window

---@class supermachine.boot_options
---@field mounts? supermachine.mount[]  mounted by the agent before anything else runs, and in each machine of a snapshot of it
---@field vcpus? integer         1 to 16; default 1
---@field memory_mib? integer    16 or more; default 256
---@field kernel? string         x86_64: an ELF vmlinux with a PVH note, or a bzImage; aarch64: an Image
---@field modules? string        folder of .ko files and modules.order; default the `modules` beside the kernel
---@field cmdline? string        appended to the kernel's command line
---@field cpu_disable? string    CPU features to hide: "cx16,avx2" (aarch64: "sve,pauth")
---@field emulator? string       of an image of another architecture: the static program that runs its programs; default qemu-user-static's
---@field volumes? supermachine.volume[]  docs/volumes.md; a bake reads their files and writes above them
---@field volume_slots? integer  volumes that a restore or an acquire can add
---@field mount_slots? integer   mounts that a restore can back
---@field net? boolean
---@field dax_mib? integer
---@field transport? "direct"|"worker"  in this process, or in a process of its own
---@field device? string         default "/dev/kvm"
---@field timeout_ms? integer    for the boot, and for the warm-up; default 60000
---@field on_stage? fun(stage: string, milliseconds: number, details: any)
---@field on_restore? string[]   what the guest runs in each machine restored from a snapshot of this one, before anybody gets it; it must end with code 0

---@class supermachine.bake_options: supermachine.boot_options
---@field warmup? string[]  argv that must end with code 0
---@field service? string[]  what runs on in the snapshot; default the image's command; one of the next four is needed
---@field ready_port? integer    the service is ready when it listens on this TCP port
---@field ready_console? string  when this is on the console
---@field ready_stdout? string   when this is in its standard output
---@field ready_ms? integer      when it has run for so long
---@field drop_caches? "boot"|"all"|"none"  what the guest only caches is not in the snapshot: before service and warm-up (default), or after; unless "none", its free pages are not either

--- A machine booted from the image, its agent ready.
---@param options? supermachine.boot_options
---@return supermachine.vm?, string? message, string? code
function image:boot(options) end
--- Boot, warm up, snapshot; the same inputs are baked once.
---@param options? supermachine.bake_options
---@return supermachine.snapshot?, boolean|string there_or_message, string? code
function image:bake(options) end
function image:close() end

---@class supermachine.saved
---@field capture_us integer     writing RAM and state
---@field pause_us integer       of it, how long a running machine stood still
---@field volumes_us integer     of that, for its volumes
---@field hash_us integer
---@field sync_us integer
---@field total_us integer
---@field ram_bytes integer      of RAM stored, without holes
---@field written_bytes integer  in all rounds
---@field rounds integer         1: it stood still

---@class supermachine.snapshot.module
local snapshot_module = {}
---@param path string
---@param options? { verify?: boolean, sealed?: boolean, prefetch?: boolean, kernel?: string }  verify: hash RAM and state even when nothing
---seems to have touched them; sealed: keep both in memory, hashed and unchangeable, whatever happens to the files;
---prefetch = false: the working set is neither read ahead at the first restore nor learned; kernel: refuse what was not
---made with the kernel of this path
---@return supermachine.snapshot?, string? message, string? code
function snapshot_module.open(path, options) end

---@class supermachine.snapshot
local snapshot = {}
---@return string
function snapshot:path() end
---@return table
function snapshot:plan() end
---@return table # what vm:snapshot was given
function snapshot:metadata() end
---@return integer # RAM stored, without holes
function snapshot:ram_bytes() end
---@return string? # the folder of the snapshot that it leans on, of one saved with diff = true
function snapshot:parent() end
--- The memory that is read ahead at the first restore, in order, as the folder had it when it was opened; in its field
--- `written` that of which each machine gets a copy beforehand.  "ENOENT": none yet; "EBADMSG": it is ignored, and why.
---@return { offset: integer, bytes: integer }[]?, string? message, string? code
function snapshot:working_set() end
--- A copy, as a new folder, that leans on no other.
---@param path string
---@return { capture_us: integer, hash_us: integer, sync_us: integer, total_us: integer, ram_bytes: integer }?, string? message, string? code
function snapshot:flatten(path) end
---@class supermachine.own_options
---@field timeout_ms? integer
---@field hostname? string
---@field env? table<string, string>|string[]  added to the environment of each later process
---@field volumes? supermachine.volume[]        behind slots that have nothing (volume_slots), and mounted; files are written to directly
---@field secrets? table<string, string>       files of mode 0400 in the guest's memory, by absolute path
---@field mounts? supermachine.mount[]  restore: bound anew where the snapshot has one at that guest path; else, and for acquire, behind a mount slot that has nothing

---@class supermachine.restore_options: supermachine.own_options
---@field transport? string
---@field device? string
---@field paused? boolean  as it was saved, paused
---@field learn? boolean   watch which pages it touches, until vm:learn()

--- A running machine with an identity of its own: random numbers, clock, vm:id(), boot ID, and machine-id where /etc has one.
---@param options? supermachine.restore_options
---@return supermachine.vm?, string? message, string? code
function snapshot:restore(options) end
--- As many at once, all or none: by as many threads as the host has processors.
---@param count integer  1 to 4096
---@param options? supermachine.restore_options  the same for each
---@return supermachine.vm[]?, string? message, string? code
function snapshot:restore_many(count, options) end
function snapshot:close() end

--- The image store.  Names are references as image.pull takes them, or digests, or 8 or more hex digits of one.
---@class supermachine.store.module
local store_module = {}

---@class supermachine.store_options
---@field store? string        folder of the store; default $XDG_DATA_HOME/supermachine
---@field json? boolean        the result as JSON text
---@field timeout_ms? integer

---@class supermachine.store_name_options: supermachine.store_options
---@field platform? string

---@class supermachine.gc_options: supermachine.store_options
---@field dry_run? boolean     report alone
---@field min_age_s? integer   spare what is younger
---@field snapshots? boolean   baked snapshots of images without a reference, too, unless they are in use

---@class supermachine.verify_options: supermachine.store_options
---@field name? string         what this image needs alone
---@field platform? string
---@field remove? boolean      what is damaged; the next pull or bake makes it anew

---@param options? supermachine.store_options
---@return { reference: string, platform: string, digest: string, size: integer, layers: integer, created?: string, time: integer, complete: boolean, error?: string }[]?, string? message, string? code
function store_module.list(options) end
---@param name string
---@param options? supermachine.store_name_options
---@return { digest: string, platform: string, references: string[], config_digest: string, size: integer, layers: table[], erofs: table[], snapshots: table[], process: supermachine.image_process, config: table, manifest: table }?, string? message, string? code
function store_module.inspect(name, options) end
--- Bytes on the disk; of each image those that others need too (shared) and those that they do not (unique).
---@param options? supermachine.store_options
---@return { blobs: table, erofs: table, snapshots: table, temporaries: table, bytes: integer, unused_bytes: integer, images: { digest: string, references: string[], bytes: integer, unique_bytes: integer, shared_bytes: integer }[] }?, string? message, string? code
function store_module.du(options) end
---@param name string
---@param new_name string
---@param options? supermachine.store_name_options
---@return { reference: string, platform: string, digest: string }?, string? message, string? code
function store_module.tag(name, new_name, options) end
--- Forget a name, on every platform unless one is given; its blobs stay until gc.
---@param name string
---@param options? supermachine.store_name_options
---@return { reference: string, platform: string, digest: string }[]?, string? message, string? code
function store_module.remove(name, options) end
--- Remove what no reference, snapshot, open image or machine needs, and what dead processes left half-written.
---@param options? supermachine.gc_options
---@return { removed: { kind: string, name: string, bytes: integer }[], removed_bytes: integer, held: integer, young: integer, unreadable: string[], dry_run: boolean }?, string? message, string? code
function store_module.gc(options) end
--- Hash every blob, look at every EROFS file, follow every reference.
---@param options? supermachine.verify_options
---@return { blobs: integer, erofs: integer, references: integer, bytes: integer, problems: { kind: string, name: string, problem: string, removed: boolean }[] }?, string? message, string? code
function store_module.verify(options) end

---@class supermachine.pool.module
local pool_module = {}
---@param from supermachine.snapshot
---@param options? { min?: integer, max?: integer, transport?: string, device?: string, identity_ms?: integer, idle_ms?: integer, reset?: "always"|"never"|"close", mounts?: supermachine.mount[] }
---@return supermachine.pool?, string? message, string? code
function pool_module.new(from, options) end

---@class supermachine.pool
local pool = {}
--- A machine as the snapshot says, with an identity of its own; closing it gives it back.
---@param options? supermachine.own_options
---@return supermachine.vm?, string? message, string? code
function pool:acquire(options) end
---@return { ready: integer, in_use: integer, recycling: integer, waiting: integer, restored: integer, recycled: integer, handed_out: integer, failed: integer, restore_us: integer, reset_p50_us: integer, reset_p99_us: integer, recycle_p50_us: integer, recycle_p99_us: integer }
function pool:stats() end
--- Hand out no more, wait until all have come back, close them.
---@param options? { timeout_ms?: integer }
---@return true?, string? message, string? code
function pool:drain(options) end
function pool:close() end

---@class supermachine.vm.module
local vm_module = {}

---@class supermachine.vm_options
---@field kernel string          needed
---@field initrd? string
---@field vcpus? integer
---@field memory_mib? integer
---@field disks? (string|string[])[]  files, or lists of EROFS layers that become one disk's partitions
---@field cmdline? string
---@field cpu_disable? string
---@field volumes? supermachine.volume[]
---@field volume_slots? integer
---@field mount_slots? integer
---@field net? boolean
---@field dax_mib? integer
---@field transport? "direct"|"worker"
---@field agent? boolean         the guest runs the agent: wait_ready works
---@field device? string
---@field mounts? supermachine.mount[]  a virtio-fs device each; without image:boot or image:bake, the guest mounts them by their tags

--- A paused machine.
---@param options supermachine.vm_options
---@return supermachine.vm?, string? message, string? code
function vm_module.new(options) end

---@class supermachine.vm
local vm = {}
---@return table
function vm:plan() end
---@return true?, string? message, string? code
function vm:resume() end
---@return true?, string? message, string? code
function vm:pause() end
---@param options? { timeout_ms?: integer }
---@return string? kernel_release, string? message, string? code
function vm:wait_ready(options) end
--- "poweroff", "reset", "halt", "panic", "triple-fault", "fault" or "worker-died", and words.
---@param options? { timeout_ms?: integer }
---@return string? reason, string? detail_or_message, string? code
function vm:wait(options) end
---@return string? reason, string? detail # nothing while it runs
function vm:ended() end
---@return integer # readable when the machine has ended
function vm:end_fd() end
---@return string?, string? message, string? code # what the console's ring holds
function vm:console() end
---@param cursor integer
---@return string?, integer next_cursor, integer lost_bytes
function vm:console_from(cursor) end
---@return { kind: string, index: integer, mmio_base: integer, irq: integer, backed: boolean, requests: integer, bytes: integer, errors: integer, full: integer, kicks: integer, interrupts: integer, fs?: { requests: integer, errors: integer, hostile: integer, stale: integer, mended: integer, nodes: integer, handles: integer, descriptors: integer, dax_bytes: integer, evicted: integer } }[]
function vm:devices() end
---@return { exits: integer, mmio_exits: integer, pio_exits: integer, kicks: integer, unhandled: integer, balloon_mib: integer }
function vm:statistics() end
--- Where the time went, microseconds of each stage: RAM mapped, VM, memory slots, interrupt controllers, vCPUs with
--- their clock, devices, and total of these (on a restore with their state); then the identity, the guest's answer
--- included, and from the first resume to the first exit served.  The last two are 0 until it has happened.
---@return { map_us: integer, vm_us: integer, memslot_us: integer, irqchip_us: integer, vcpus_us: integer, devices_us: integer, total_us: integer, identity_us: integer, first_run_us: integer }?, string? message, string? code
function vm:timings() end
---@return integer? # the worker's process
function vm:pid() end
---@return string? # a UUID since its last restore or reset; in the guest, /run/supermachine/id
function vm:id() end
--- Put host folders behind mount slots that have nothing, and have the guest mount them; a reset takes them away.
---@param mounts supermachine.mount[]
---@param options? { timeout_ms?: integer }
---@return true?, string? message, string? code
function vm:mount(mounts, options) end
---@return { host: string, guest: string, tag: string, readonly: boolean }[]
function vm:mounts() end
---@param mib integer
---@return true?, string? message, string? code
function vm:set_balloon(mib) end
--- Give the guest's free memory back to the host.
---@param options? { drop_caches?: boolean, timeout_ms?: integer }
---@return { freed_mib: integer }?, string? message, string? code
function vm:trim(options) end
--- Save a machine, paused or running, as a new folder; one that runs goes on.
---@param path string
---@param metadata? table
---@param options? { diff?: boolean }  diff: of a restored machine, store only the RAM that has changed since
---@return supermachine.saved?, string? message, string? code
function vm:snapshot(path, metadata, options) end
--- Record what memory it has touched since its restore as its snapshot's working set, in place of what is there: to the
--- page if it was restored with learn = true (and Linux is 6.7 or later), else with neighbours.
---@return true?, string? message, string? code
function vm:learn() end
--- Make a restored machine what it was when it was restored, in place, with an identity of its own.
---@param options? { timeout_ms?: integer, paused?: boolean }
---@return { copied_bytes: integer, dropped_bytes: integer, stop_us: integer, memory_us: integer, total_us: integer }?, string? message, string? code
function vm:reset(options) end

---@class supermachine.process_options
---@field env? table<string, string>|string[]
---@field cwd? string
---@field user? string            "name", "1000", "1000:1000"
---@field tty? boolean
---@field rows? integer
---@field columns? integer
---@field merge_stderr? boolean
---@field limits? table           memory_bytes, cpu_s, open_files, processes, ..: a number or {soft, hard}
---@field max_output_bytes? integer
---@field timeout_ms? integer

---@class supermachine.exec_options: supermachine.process_options
---@field stdin? string
---@class supermachine.spawn_options: supermachine.process_options
---@field stdin? boolean
---@field keep? boolean   it goes on when the handle is closed, and in clones of a snapshot; its output is dropped then

---@class supermachine.result
---@field code? integer
---@field signal? integer
---@field stdout string
---@field stderr string
---@field duration_ms number
---@field max_rss_bytes integer
---@field truncated boolean

--- Run a process to its end; a code other than 0 is a result.
---@param argv string[]
---@param options? supermachine.exec_options
---@return supermachine.result?, string? message, string? code, table? partial
function vm:exec(argv, options) end
---@param argv string[]
---@param options? supermachine.spawn_options
---@return supermachine.process?, string? message, string? code
function vm:spawn(argv, options) end
---@param port integer
---@param options? { address?: string, timeout_ms?: integer }
---@return supermachine.stream?, string? message, string? code
function vm:connect(port, options) end
---@param path string
---@param options? { max_bytes?: integer, timeout_ms?: integer }
---@return string?, table|string info_or_message, string? code
function vm:read_file(path, options) end
---@param path string
---@param data string
---@param options? { mode?: integer, timeout_ms?: integer }
---@return true?, string? message, string? code
function vm:write_file(path, data, options) end
--- Put files behind volume slots that have nothing, and have the guest mount them.  A reset takes them away.
---@param volumes supermachine.volume[]
---@param options? { timeout_ms?: integer }
---@return true?, string? message, string? code
function vm:mount_volumes(volumes, options) end
---@param word "ping"|"sync"|"shutdown"|"drop_caches"
---@param options? { timeout_ms?: integer }
---@return true?, string? message, string? code
function vm:command(word, options) end
function vm:close() end

---@class supermachine.process
local process = {}
---@param format? integer|"l"|"L"|"a"
---@param options? { stderr?: boolean, timeout_ms?: integer }
---@return string?, string? message, string? code
function process:read(format, options) end
---@param format? "l"|"L"
---@return fun(): string?
function process:lines(format) end
---@param bytes string
---@param options? { timeout_ms?: integer }
---@return true?, string? message, string? code
function process:write(bytes, options) end
function process:close_stdin() end
---@param signal? integer|string  default the image's stop signal, or TERM
---@return true?, string? message, string? code
function process:signal(signal) end
---@param rows integer
---@param columns integer
function process:resize(rows, columns) end
---@param options? { timeout_ms?: integer }
---@return supermachine.result?, string? message, string? code
function process:wait(options) end
---@return integer? # its number in the guest
function process:pid() end
---@return integer
function process:fd() end
---@return "r"|"rw"
function process:events() end
---@return boolean # whether it still runs
function process:step() end
function process:close() end

---@class supermachine.stream
local stream = {}
---@param format? integer|"l"|"L"|"a"
---@param options? { timeout_ms?: integer }
---@return string?, string? message, string? code
function stream:read(format, options) end
---@param bytes string
---@param options? { timeout_ms?: integer }
---@return true?, string? message, string? code
function stream:write(bytes, options) end
function stream:shutdown() end
---@return integer
function stream:fd() end
function stream:close() end

return sm
