#include "steer/object.h"
#include "base/limits.h"
#include "steer/object_btf.h"

#include <elf.h>
#include <endian.h>
#include <errno.h>
#include <linux/bpf.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const check_names[STEER_CHECK_COUNT] = {
#define CHECK_NAME(id, name) [STEER_CHECK_##id] = (name),
	STEER_CHECKS(CHECK_NAME)
#undef CHECK_NAME
};

const char *steer_check_name(enum steer_check check)
{
	return check_names[check];
}

void steer_report_done(struct steer_report *report)
{
	free(report->log);
	report->log = NULL;
}

int report_fail(struct steer_report *report, enum steer_check check, const char *format, ...)
{
	va_list args;

	report->check = check;
	va_start(args, format);
	vsnprintf(report->text, sizeof(report->text), format, args);
	va_end(args);
	return -EINVAL;
}

/* --- the tables --- */

struct object_section {
	const uint8_t *bytes; /* not aligned */
	size_t size;
};

struct object {
	const uint8_t *elf;
	size_t size;
	Elf64_Ehdr header;
	Elf64_Shdr *sections;		 /* copies: nothing in the file is known to be aligned */
	size_t symbols_at, symbol_count; /* symbols_at: index of the section; 0: none */
	struct steer_report *report;
};

#define bad(o, ...) \
	report_fail((o)->report, STEER_CHECK_ELF, "not a usable ELF object: " __VA_ARGS__)

static bool is_within(size_t at, size_t len, size_t whole)
{
	return at <= whole && len <= whole - at;
}

static int read_header(struct object *o)
{
	const Elf64_Ehdr *header = &o->header;
	const uint8_t data = __BYTE_ORDER == __LITTLE_ENDIAN ? ELFDATA2LSB : ELFDATA2MSB;

	if (o->size < sizeof(*header) || memcmp(o->elf, ELFMAG, SELFMAG) != 0)
		return bad(o, "it does not begin as an ELF file does");
	memcpy(&o->header, o->elf, sizeof(o->header));
	if (header->e_ident[EI_CLASS] != ELFCLASS64 || header->e_ident[EI_DATA] != data ||
	    header->e_machine != EM_BPF)
		return bad(o, "it is not for BPF: compile it with clang -target bpf");
	if (header->e_type != ET_REL || header->e_phnum)
		return bad(o, "it is linked: upload what clang -c writes");
	if (header->e_shentsize != sizeof(Elf64_Shdr) || header->e_shnum < 2 ||
	    header->e_shnum > OBJECT_SECTIONS_MAX)
		return bad(o, "it has no sections, or too many");
	if (!is_within(header->e_shoff, header->e_shnum * sizeof(Elf64_Shdr), o->size))
		return bad(o, "its table of sections is cut off");
	return 0;
}

static int read_sections(struct object *o)
{
	size_t count = o->header.e_shnum;

	o->sections = calloc(count, sizeof(*o->sections));
	if (!o->sections)
		return -ENOMEM;
	memcpy(o->sections, o->elf + o->header.e_shoff, count * sizeof(*o->sections));
	for (size_t i = 0; i < count; i++) {
		const Elf64_Shdr *s = &o->sections[i];

		if (s->sh_type == SHT_NULL)
			continue;
		/* .bss takes no room in the file, and takes memory all the same */
		if (s->sh_type == SHT_NOBITS ? s->sh_size > TRIAL_MAP_BYTES
					     : !is_within(s->sh_offset, s->sh_size, o->size))
			return bad(o, "section %zu is cut off or too large", i);
		if (s->sh_flags & SHF_COMPRESSED)
			return bad(o, "section %zu is compressed", i);
		if (s->sh_link >= count)
			return bad(o, "section %zu belongs to one that is not there", i);
		if (s->sh_type == SHT_STRTAB &&
		    (!s->sh_size || o->elf[s->sh_offset + s->sh_size - 1]))
			return bad(o, "the strings of section %zu have no end", i);
	}
	return 0;
}

static bool is_string(const struct object *o, size_t table, size_t at)
{
	return o->sections[table].sh_type == SHT_STRTAB && at < o->sections[table].sh_size;
}

static const char *section_name(const struct object *o, size_t i)
{
	return (const char *)o->elf + o->sections[o->header.e_shstrndx].sh_offset +
	       o->sections[i].sh_name;
}

static int check_names_of_sections(const struct object *o)
{
	size_t table = o->header.e_shstrndx;

	if (table >= o->header.e_shnum)
		return bad(o, "its sections have no names");
	for (size_t i = 0; i < o->header.e_shnum; i++)
		if (!is_string(o, table, o->sections[i].sh_name))
			return bad(o, "section %zu has no name", i);
	return 0;
}

static int check_symbols(struct object *o, size_t i)
{
	const Elf64_Shdr *s = &o->sections[i];

	if (o->symbols_at)
		return bad(o, "it has a second table of symbols, section %zu", i);
	if (s->sh_entsize != sizeof(Elf64_Sym) || s->sh_size % sizeof(Elf64_Sym))
		return bad(o, "section %zu is no table of symbols", i);
	o->symbols_at = i;
	o->symbol_count = s->sh_size / sizeof(Elf64_Sym);
	for (size_t n = 0; n < o->symbol_count; n++) {
		Elf64_Sym symbol;
		size_t in;

		memcpy(&symbol, o->elf + s->sh_offset + n * sizeof(symbol), sizeof(symbol));
		in = symbol.st_shndx;
		if (!is_string(o, s->sh_link, symbol.st_name))
			return bad(o, "symbol %zu has no name", n);
		if (in >= SHN_LORESERVE)
			continue;
		if (in >= o->header.e_shnum)
			return bad(o, "symbol %zu is in no section", n);
		if (in && !is_within(symbol.st_value, symbol.st_size, o->sections[in].sh_size))
			return bad(o, "symbol %zu is outside of its section", n);
	}
	return 0;
}

static int check_relocations(const struct object *o, size_t i)
{
	const Elf64_Shdr *s = &o->sections[i];

	if (s->sh_entsize != sizeof(Elf64_Rel) || s->sh_size % sizeof(Elf64_Rel) ||
	    s->sh_info >= o->header.e_shnum || !o->symbols_at || s->sh_link != o->symbols_at)
		return bad(o, "section %zu is no table of relocations", i);
	for (size_t n = 0; n < s->sh_size / sizeof(Elf64_Rel); n++) {
		Elf64_Rel relocation;

		memcpy(&relocation, o->elf + s->sh_offset + n * sizeof(relocation),
		       sizeof(relocation));
		if (ELF64_R_SYM(relocation.r_info) >= o->symbol_count ||
		    relocation.r_offset >= o->sections[s->sh_info].sh_size)
			return bad(o, "a relocation of section %zu leads out of the file", i);
	}
	return 0;
}

static int check_btf(const struct object *o, size_t i)
{
	const Elf64_Shdr *s = &o->sections[i];
	const char *wrong;

	if (strcmp(section_name(o, i), ".BTF") != 0)
		return 0;
	wrong = s->sh_type == SHT_PROGBITS ? object_btf_check(o->elf + s->sh_offset, s->sh_size)
					   : "it is no section of data";
	return wrong ? bad(o, "its BTF: %s", wrong) : 0;
}

static int check_tables(struct object *o)
{
	int r = check_names_of_sections(o);

	for (size_t i = 0; i < o->header.e_shnum && r == 0; i++)
		if (o->sections[i].sh_type == SHT_SYMTAB)
			r = check_symbols(o, i);
	for (size_t i = 0; i < o->header.e_shnum && r == 0; i++)
		if (o->sections[i].sh_type == SHT_REL)
			r = check_relocations(o, i);
		else if (o->sections[i].sh_type == SHT_RELA)
			r = bad(o, "section %zu has relocations of a kind that BPF has not", i);
	for (size_t i = 0; i < o->header.e_shnum && r == 0; i++)
		r = check_btf(o, i);
	return r;
}

static int object_open(const uint8_t *elf, size_t size, struct steer_report *report,
		       struct object *ret_object)
{
	struct object o = {.elf = elf, .size = size, .report = report};
	int r = read_header(&o);

	if (r == 0)
		r = read_sections(&o);
	if (r == 0)
		r = check_tables(&o);
	if (r < 0) {
		free(o.sections);
		return r;
	}
	*ret_object = o;
	return 0;
}

/* How many sections have the name; the bytes of the first. */
static unsigned find(const struct object *o, const char *name, struct object_section *ret_section)
{
	unsigned found = 0;

	for (size_t i = o->header.e_shnum; i-- > 0;) {
		const Elf64_Shdr *s = &o->sections[i];

		if (s->sh_type != SHT_PROGBITS || strcmp(section_name(o, i), name) != 0)
			continue;
		*ret_section = (struct object_section){o->elf + s->sh_offset, s->sh_size};
		found++;
	}
	return found;
}

/* --- what it says of itself --- */

static bool is_name(const char *name, size_t max)
{
	size_t len = strnlen(name, max);

	return len && len < max && strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789-") == len;
}

/* "1.20.3": three numbers that fit 16 bits, without leading zeros. */
static bool is_version(const char *text, size_t max)
{
	unsigned parts = 0;

	if (strnlen(text, max) == max)
		return false;
	for (;; text++) {
		size_t len = strspn(text, "0123456789");

		if (!len || len > 5 || (len > 1 && *text == '0') || atol(text) > 65535)
			return false;
		text += len;
		if (++parts == 3)
			return !*text;
		if (*text != '.')
			return false;
	}
}

static int read_metadata(const struct object *o, struct hf_program *ret_program)
{
	struct steer_report *report = o->report;
	struct object_section section;
	struct hf_program program;
	unsigned found = find(o, HF_PROGRAM_SECTION, &section);

	if (found != 1)
		return report_fail(report, STEER_CHECK_METADATA,
				   "%s section " HF_PROGRAM_SECTION ": write HF_PROGRAM once",
				   found ? "more than one" : "no");
	if (section.size < 2 * sizeof(__u32))
		return report_fail(report, STEER_CHECK_METADATA, "its metadata is cut off");
	memset(&program, 0, sizeof(program));
	memcpy(&program, section.bytes,
	       section.size < sizeof(program) ? section.size : sizeof(program));
	if (program.magic != HF_PROGRAM_MAGIC)
		return report_fail(report, STEER_CHECK_METADATA,
				   "its metadata does not begin with the magic number 0x%08x",
				   HF_PROGRAM_MAGIC);
	if (program.abi != HF_ABI_VERSION)
		return report_fail(report, STEER_CHECK_ABI,
				   "it is built for ABI %u, and this daemon has ABI %u",
				   program.abi, HF_ABI_VERSION);
	if (section.size != sizeof(program))
		return report_fail(report, STEER_CHECK_METADATA,
				   "its metadata has %zu octets, not %zu", section.size,
				   sizeof(program));
	if (!is_name(program.name, sizeof(program.name)))
		return report_fail(report, STEER_CHECK_METADATA,
				   "its name is not 1 to 31 of a-z, 0-9 and '-'");
	if (!is_version(program.version, sizeof(program.version)))
		return report_fail(report, STEER_CHECK_METADATA,
				   "its version is not MAJOR.MINOR.PATCH, each up to 65535");
	*ret_program = program;
	return 0;
}

static int check_golden(const struct hf_golden *packet, size_t index, struct steer_report *report)
{
	const char *what = NULL;

	if (!memchr(packet->name, '\0', sizeof(packet->name)))
		return report_fail(report, STEER_CHECK_GOLDEN, "golden packet %zu: no name", index);
	/* BPF_PROG_TEST_RUN takes no frame that is shorter than an Ethernet header. */
	if (packet->len < 14 || packet->len > HF_GOLDEN_BYTES)
		what = "its length is not 14 to 256";
	else if (packet->out_len > HF_GOLDEN_BYTES)
		what = "the length that must come out is over 256";
	else if (packet->role > HF_ROLE_LINK)
		what = "its role is none";
	else if (packet->action > XDP_REDIRECT)
		what = "its action is none";
	if (!what)
		return 0;
	return report_fail(report, STEER_CHECK_GOLDEN, "golden packet %zu, \"%s\": %s", index,
			   packet->name, what);
}

static int read_golden(const struct object *o, struct hf_golden **ret_packets, size_t *ret_count)
{
	struct object_section section;
	struct hf_golden *packets;
	size_t count;

	*ret_packets = NULL;
	*ret_count = 0;
	if (!find(o, HF_GOLDEN_SECTION, &section))
		return 0;
	count = section.size / sizeof(*packets);
	if (section.size % sizeof(*packets) || count > HF_GOLDEN_MAX)
		return report_fail(o->report, STEER_CHECK_GOLDEN,
				   "section " HF_GOLDEN_SECTION
				   " is not up to %d packets of %zu octets",
				   HF_GOLDEN_MAX, sizeof(*packets));
	packets = calloc(count + 1, sizeof(*packets));
	if (!packets)
		return -ENOMEM;
	memcpy(packets, section.bytes, section.size);
	for (size_t i = 0; i < count; i++) {
		int r = check_golden(&packets[i], i, o->report);

		if (r < 0) {
			free(packets);
			return r;
		}
	}
	*ret_packets = packets;
	*ret_count = count;
	return 0;
}

int object_golden(const uint8_t *elf, size_t size, struct hf_golden **ret_packets,
		  size_t *ret_count, struct steer_report *ret_report)
{
	struct object o;
	int r = object_open(elf, size, ret_report, &o);

	if (r < 0)
		return r;
	r = read_golden(&o, ret_packets, ret_count);
	free(o.sections);
	return r;
}

int steer_program_read(const uint8_t *elf, size_t size, struct hf_program *ret_program,
		       struct steer_report *ret_report)
{
	struct hf_program program;
	struct hf_golden *packets;
	struct object o;
	size_t count;
	int r;

	*ret_report = (struct steer_report){0};
	if (size > HF_PROGRAM_BYTES_MAX)
		return report_fail(ret_report, STEER_CHECK_SIZE,
				   "it has %zu octets; a program may have %d", size,
				   HF_PROGRAM_BYTES_MAX);
	r = object_open(elf, size, ret_report, &o);
	if (r == 0) {
		r = read_metadata(&o, &program);
		if (r == 0)
			r = read_golden(&o, &packets, &count);
		free(o.sections);
	}
	if (r == -ENOMEM)
		return report_fail(ret_report, STEER_CHECK_SIZE, "no memory to read it");
	if (r < 0)
		return r;
	free(packets);
	*ret_program = program;
	return 0;
}
