/* SPDX-License-Identifier: GPL-2.0 */
/* refscan: what its parts share. */
#ifndef REFSCAN_H
#define REFSCAN_H

#include <linux/fs.h>
#include <linux/module.h>
#include <linux/seq_file.h>

/* No more holders than this are shown; the last line says how many more there are. */
#define MAX_SHOWN	512

/* What would break a line into other words. */
#define ESCAPED		" \t\n\\"

struct scan {
	struct seq_file *to;
	struct module *module;
	unsigned int shown, cut, refs;
	/* The open files that were shown, to tell when two descriptors are one open file. */
	unsigned int files;
	struct file *file[MAX_SHOWN];
};

/*
 * Begins the line of a holder, which the caller completes with end_holder(); false if there is
 * room for no more.  refs is how many references the kernel's own code took for it.
 */
bool begin_holder(struct scan *scan, const char *kind, const char *via, unsigned int refs);
void end_holder(struct scan *scan);
/* Adds a word of the line: NAME=VALUE, the value escaped. */
void add_word(struct scan *scan, const char *name, const char *value);
/* Says that one kind of holder could not be looked for. */
void not_scanned(struct scan *scan, const char *kind, const char *why);

/* Whether something is in the module's memory. */
static inline bool in_module(const struct scan *scan, const void *address)
{
	return address && within_module((unsigned long)address, scan->module);
}

/* Each may sleep, and is called with no lock held. */
void scan_tasks(struct scan *scan);
void scan_mounts(struct scan *scan);
void scan_interfaces(struct scan *scan);
void scan_dependents(struct scan *scan);

#endif
