/* An ELF kernel with a PVH note (Xen, docs/misc/pvh.pandoc; notes: xen/include/public/elfnote.h). */
#include "arch/x86_64/load.h"
#include "arch/x86_64/platform.h"
#include "base/fd.h"

#include <elf.h>
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#define SEGMENTS_MAX      64
#define NOTES_MAX         (64u << 10)
#define NOTE_PHYS32_ENTRY 18 /* XEN_ELFNOTE_PHYS32_ENTRY */

static int read_at(const struct sm_x86_load *load, void *data, uint64_t bytes, uint64_t offset, const char *what,
                   struct sm_error *err)
{
	if (offset > load->kernel_bytes || bytes > load->kernel_bytes - offset)
		return sm_error_set(err, ENOEXEC, "kernel: cut short: %llu bytes end before %s",
		                    (unsigned long long)load->kernel_bytes, what);
	int code = sm_fd_pread_full(load->kernel_fd, data, bytes, offset);
	return code < 0 ? sm_error_sys(err, code, "kernel: read %s", what) : 0;
}

static int check_header(const Elf64_Ehdr *header, struct sm_error *err)
{
	if (header->e_ident[EI_CLASS] != ELFCLASS64 || header->e_ident[EI_DATA] != ELFDATA2LSB ||
	    header->e_machine != EM_X86_64)
		return sm_error_set(err, ENOEXEC, "kernel: an ELF image, but not a 64-bit x86_64 one");
	if (header->e_phentsize != sizeof(Elf64_Phdr) || header->e_phnum == 0 || header->e_phnum > SEGMENTS_MAX)
		return sm_error_set(err, ENOEXEC,
		                    "kernel: %u program headers of %u bytes, from 1 to %d of %zu are possible",
		                    header->e_phnum, header->e_phentsize, SEGMENTS_MAX, sizeof(Elf64_Phdr));
	return 0;
}

static int load_segment(struct sm_x86_load *load, const Elf64_Phdr *segment, unsigned number, struct sm_error *err)
{
	if (segment->p_memsz == 0)
		return 0;
	if (segment->p_filesz > segment->p_memsz)
		return sm_error_set(err, ENOEXEC, "kernel: segment %u is larger in the file than in memory", number);
	if (segment->p_paddr < SM_X86_HIGH_START)
		return sm_error_set(err, ENOEXEC, "kernel: segment %u at 0x%llx lies below 1 MiB", number,
		                    (unsigned long long)segment->p_paddr);
	/* Fresh RAM is zero: what the file does not hold needs no write. */
	void *at = sm_memory_at_read(load->memory, segment->p_paddr, segment->p_memsz)
	               ? sm_memory_at_write(load->memory, segment->p_paddr, segment->p_filesz)
	               : NULL;
	if (!at)
		return sm_error_set(err, E2BIG,
		                    "kernel: segment %u (%llu bytes at 0x%llx) is not within %llu MiB of RAM", number,
		                    (unsigned long long)segment->p_memsz, (unsigned long long)segment->p_paddr,
		                    (unsigned long long)load->plan->memory_mib);
	uint64_t end = segment->p_paddr + segment->p_memsz;
	if (end > load->kernel_end)
		load->kernel_end = end;
	return read_at(load, at, segment->p_filesz, segment->p_offset, "a segment", err);
}

/* The descriptor of the entry note: 4 bytes, or 8 by 64-bit linkers. */
static bool entry_note(const uint8_t *notes, size_t len, size_t align, uint64_t *ret_entry)
{
	size_t at = 0;
	while (len - at >= sizeof(Elf64_Nhdr)) {
		Elf64_Nhdr note;
		memcpy(&note, notes + at, sizeof note);
		at += sizeof note;
		/* Widened, so that rounding up cannot wrap. */
		uint64_t name = ((uint64_t)note.n_namesz + align - 1) / align * align;
		uint64_t desc = ((uint64_t)note.n_descsz + align - 1) / align * align;
		if (name > len - at || note.n_descsz > len - at - name)
			return false;
		const uint8_t *value = notes + at + name;
		if (note.n_type == NOTE_PHYS32_ENTRY && note.n_namesz == 4 && memcmp(notes + at, "Xen", 4) == 0 &&
		    (note.n_descsz == 4 || note.n_descsz == 8)) {
			*ret_entry = 0;
			memcpy(ret_entry, value, note.n_descsz);
			return true;
		}
		if (desc > len - at - name)
			return false;
		at += name + desc;
	}
	return false;
}

static int find_entry(struct sm_x86_load *load, const Elf64_Phdr *segment, bool *ret_found, struct sm_error *err)
{
	if (segment->p_filesz > NOTES_MAX)
		return sm_error_set(err, ENOEXEC, "kernel: %llu bytes of notes, at most %u are read",
		                    (unsigned long long)segment->p_filesz, NOTES_MAX);
	uint8_t *notes = malloc(segment->p_filesz + 1);
	if (!notes)
		return sm_error_set(err, ENOMEM, "kernel: out of memory");
	int code = read_at(load, notes, segment->p_filesz, segment->p_offset, "the notes", err);
	if (code == 0)
		*ret_found = entry_note(notes, segment->p_filesz, segment->p_align == 8 ? 8 : 4, &load->entry);
	free(notes);
	return code;
}

int sm_x86_elf_load(struct sm_x86_load *load, struct sm_error *err)
{
	Elf64_Ehdr header;
	int code = read_at(load, &header, sizeof header, 0, "the ELF header", err);
	if (code == 0)
		code = check_header(&header, err);
	if (code < 0)
		return code;
	Elf64_Phdr segments[SEGMENTS_MAX];
	code = read_at(load, segments, header.e_phnum * sizeof *segments, header.e_phoff, "the program headers", err);

	bool found = false;
	for (unsigned i = 0; i < header.e_phnum && code == 0 && !found; i++)
		if (segments[i].p_type == PT_NOTE)
			code = find_entry(load, &segments[i], &found, err);
	if (code == 0 && !found)
		return sm_error_set(err, ENOEXEC,
		                    "kernel: an ELF image without a PVH entry note "
		                    "(XEN_ELFNOTE_PHYS32_ENTRY): Linux has one with CONFIG_PVH");
	for (unsigned i = 0; i < header.e_phnum && code == 0; i++)
		if (segments[i].p_type == PT_LOAD)
			code = load_segment(load, &segments[i], i, err);
	if (code == 0 &&
	    (load->entry < SM_X86_HIGH_START || load->entry >= load->kernel_end || load->entry > UINT32_MAX))
		return sm_error_set(err, ENOEXEC, "kernel: its PVH entry 0x%llx lies outside of it",
		                    (unsigned long long)load->entry);
	return code;
}
