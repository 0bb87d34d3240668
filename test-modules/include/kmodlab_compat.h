/* SPDX-License-Identifier: GPL-2.0 */
/*
 * All that differs between kernels, from v4.9 on, for the test modules.  Each difference names the
 * version and the commit that made it.  Include this header after the kernel's own.
 */
#ifndef KMODLAB_COMPAT_H
#define KMODLAB_COMPAT_H

#include <linux/fs.h>
#include <linux/kernel.h>
#include <linux/kprobes.h>
#include <linux/proc_fs.h>
#include <linux/version.h>
#include <asm/sections.h>
#ifdef CONFIG_PPC
#include <asm/code-patching.h>
#endif

/*
 * v5.6, d56c0d45f0e2 ("proc: decouple proc from VFS with "struct proc_ops""): files in /proc are
 * described by a structure of their own.
 */
#if LINUX_VERSION_CODE < KERNEL_VERSION(5, 6, 0)
#define proc_ops	file_operations
#define proc_open	open
#define proc_read	read
#define proc_write	write
#define proc_lseek	llseek
#define proc_release	release
#endif

/*
 * The function behind fork() and clone().  v5.10, cad6967ac108 ("fork: introduce kernel_clone()"):
 * it was _do_fork before, and do_fork before v4.2.
 */
#if LINUX_VERSION_CODE < KERNEL_VERSION(5, 10, 0)
#define KMODLAB_FORK	"_do_fork"
#else
#define KMODLAB_FORK	"kernel_clone"
#endif

/*
 * The address of the first instruction that every call of a function executes.  A function pointer is
 * something else where it points to a descriptor (ppc64 with the ELFv1 ABI, ia64, parisc64), where calls
 * inside a module skip the function's first instructions (ppc64 with the ELFv2 ABI), and where it has
 * the Thumb bit set (arm).
 */
static inline unsigned long kmodlab_text_address(void *function)
{
#ifdef CONFIG_PPC
	return ppc_function_entry(function);
#else
	unsigned long address = (unsigned long)dereference_function_descriptor(function);

	return IS_ENABLED(CONFIG_THUMB2_KERNEL) ? address & ~1UL : address;
#endif
}

/*
 * The assembler's name of a function's first instruction: with the ELFv1 ABI of ppc64 the plain
 * name is that of the descriptor.
 */
#if defined(CONFIG_PPC64) && (!defined(_CALL_ELF) || _CALL_ELF == 1)
#define KMODLAB_ASM_TEXT(function)	"." #function
#else
#define KMODLAB_ASM_TEXT(function)	#function
#endif

#endif
