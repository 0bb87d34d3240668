/* SPDX-License-Identifier: GPL-2.0 */
/* How to write functions for probes to sit on. */
#ifndef KMODLAB_TARGET_H
#define KMODLAB_TARGET_H

#include <linux/compiler.h>
#include <linux/types.h>

#include "kmodlab_compat.h"

/*
 * A place that the function tracer has takes no probe, with EINVAL, where the tracer does not serve
 * probes itself: check_ftrace_location() in kernel/kprobes.c.  On riscv, and in modules on mips, that place
 * is a function's first instruction, so that functions to probe there must not be traced.
 */
#if (defined(CONFIG_RISCV) || defined(CONFIG_MIPS)) && !defined(CONFIG_KPROBES_ON_FTRACE)
#define PROBEABLE	notrace
#else
#define PROBEABLE
#endif

/* For functions that must be called as they are written: neither inlined, cloned nor left out. */
#define CALLED	noinline __noclone __used
/* For those, too, that have probes on their first instruction. */
#define TARGET	CALLED PROBEABLE

/* Hides from the compiler what is known of a value, and keeps the call around it. */
#define OPAQUE(value)	asm volatile("" : "+r" (value) : : "memory")

/*
 * An instruction inside a function, a nop, whose offset from the function's start is in `offset`,
 * to be declared as `extern const u32 offset;`.  The assembler works it out from a local label:
 * one in the symbol table would give its name to the addresses that follow.  The nops before it
 * take it out of what an architecture counts as a function's entry (16 bytes on ppc64le), and
 * those after it leave room for the jump of an optimized probe (5 bytes on x86).
 */
#define INNER_INSTRUCTION(function, offset, value)			\
	asm volatile("	.rept 4\n"					\
		     "	nop\n"						\
		     "	.endr\n"					\
		     "1:	nop\n"					\
		     "	.rept 8\n"					\
		     "	nop\n"						\
		     "	.endr\n"					\
		     "	.pushsection .rodata\n"				\
		     "	.balign 4\n"					\
		     "	.globl " #offset "\n"				\
		     #offset ":\n"					\
		     "	.4byte 1b - " KMODLAB_ASM_TEXT(function) "\n"	\
		     "	.popsection"					\
		     : "+r" (value))

#endif
