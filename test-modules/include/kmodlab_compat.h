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

/* Whether the kernel is older than a version. */
#define kernel_before(version, patchlevel)	\
	(LINUX_VERSION_CODE < KERNEL_VERSION(version, patchlevel, 0))

/*
 * v5.6, d56c0d45f0e2 ("proc: decouple proc from VFS with "struct proc_ops""): files in /proc are
 * described by a structure of their own.
 */
#if kernel_before(5, 6)
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
#if kernel_before(5, 10)
#define KMODLAB_FORK	"_do_fork"
#else
#define KMODLAB_FORK	"kernel_clone"
#endif

/*
 * The address of the first instruction that every call of a function executes.  A function
 * pointer is something else where it points to a descriptor (ppc64 with the ELFv1 ABI, ia64,
 * parisc64), where calls inside a module skip the function's first instructions (ppc64 with the
 * ELFv2 ABI), and where it has the Thumb bit set (arm).
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
#define KMODLAB_HAS_DESCRIPTORS	1
#else
#define KMODLAB_HAS_DESCRIPTORS	0
#define KMODLAB_ASM_TEXT(function)	#function
#endif

/*
 * The first 8 words of a probed function's arguments, at its entry: kmodlab_argument(), where
 * KMODLAB_HAS_ARGUMENTS is 1.  The kernel has regs_get_kernel_argument() for it, since v4.20 at the
 * earliest and on some architectures only: not on arm, and not on powerpc in v6.1.  That of s390
 * needs functions that modules cannot use (regs_get_register() of arch/s390/kernel/ptrace.c).
 */
#if defined(CONFIG_HAVE_FUNCTION_ARG_ACCESS_API) && !defined(CONFIG_S390)
#define KMODLAB_HAS_ARGUMENTS	1
static inline unsigned long kmodlab_argument(struct pt_regs *regs, unsigned int n)
{
	return regs_get_kernel_argument(regs, n);
}
#else
/* How many are in registers, which those are, and the first word on the stack. */
#if defined(CONFIG_X86_64)
#define KMODLAB_REGISTERS	{ regs->di, regs->si, regs->dx, regs->cx, regs->r8, regs->r9 }
#define KMODLAB_STACK_WORD	1	/* after the return address */
#elif defined(CONFIG_X86_32)
#define KMODLAB_REGISTERS	{ regs->ax, regs->dx, regs->cx }
#define KMODLAB_STACK_WORD	1
#elif defined(CONFIG_ARM)
#define KMODLAB_REGISTERS	{ regs->ARM_r0, regs->ARM_r1, regs->ARM_r2, regs->ARM_r3 }
#define KMODLAB_STACK_WORD	0
#elif defined(CONFIG_ARM64)
#define KMODLAB_REGISTERS	{ regs->regs[0], regs->regs[1], regs->regs[2], regs->regs[3], \
				  regs->regs[4], regs->regs[5], regs->regs[6], regs->regs[7] }
#define KMODLAB_STACK_WORD	0
#elif defined(CONFIG_MIPS) && defined(CONFIG_64BIT)
#define KMODLAB_REGISTERS	{ regs->regs[4], regs->regs[5], regs->regs[6], regs->regs[7], \
				  regs->regs[8], regs->regs[9], regs->regs[10], regs->regs[11] }
#define KMODLAB_STACK_WORD	0
#elif defined(CONFIG_RISCV)
#define KMODLAB_REGISTERS	{ regs->a0, regs->a1, regs->a2, regs->a3, \
				  regs->a4, regs->a5, regs->a6, regs->a7 }
#define KMODLAB_STACK_WORD	0
#elif defined(CONFIG_S390)
#define KMODLAB_REGISTERS	{ regs->gprs[2], regs->gprs[3], regs->gprs[4], regs->gprs[5], \
				  regs->gprs[6] }
#define KMODLAB_STACK_WORD	20	/* STACK_FRAME_OVERHEAD, in words */
#elif defined(CONFIG_PPC)
#define KMODLAB_REGISTERS	{ regs->gpr[3], regs->gpr[4], regs->gpr[5], regs->gpr[6], \
				  regs->gpr[7], regs->gpr[8], regs->gpr[9], regs->gpr[10] }
#define KMODLAB_STACK_WORD	0
#elif defined(CONFIG_SPARC64)
/* At its entry a function has them in its caller's window, where they are "out" registers. */
#define KMODLAB_REGISTERS	{ regs->u_regs[UREG_I0], regs->u_regs[UREG_I1], \
				  regs->u_regs[UREG_I2], regs->u_regs[UREG_I3], \
				  regs->u_regs[UREG_I4], regs->u_regs[UREG_I5] }
#define KMODLAB_STACK_WORD	22	/* after the window and the places of the first six */
#define KMODLAB_STACK_BIAS	STACK_BIAS
#endif
#ifndef KMODLAB_STACK_BIAS
#define KMODLAB_STACK_BIAS	0
#endif
#ifdef KMODLAB_REGISTERS
#define KMODLAB_HAS_ARGUMENTS	1
static inline unsigned long kmodlab_argument(struct pt_regs *regs, unsigned int n)
{
	unsigned long in_registers[] = KMODLAB_REGISTERS;
	unsigned long *stack = (unsigned long *)(kernel_stack_pointer(regs) + KMODLAB_STACK_BIAS);

	if (n < ARRAY_SIZE(in_registers))
		return in_registers[n];
	return stack[n - ARRAY_SIZE(in_registers) + KMODLAB_STACK_WORD];
}
#else
#define KMODLAB_HAS_ARGUMENTS	0
static inline unsigned long kmodlab_argument(struct pt_regs *regs, unsigned int n)
{
	return 0;
}
#endif
#endif

/* v5.13, cf68fffb66d6 ("add support for Clang CFI"): functions exempt from its checks. */
#ifndef __nocfi
#define __nocfi
#endif

/* v5.14, ec6aba3d2be1 ("kprobes: Remove kprobe::fault_handler") */
#if kernel_before(5, 14)
#define KMODLAB_HAS_FAULT_HANDLER
#endif

/* v5.11, d741bf41d7c7 ("kprobes: Remove kretprobe hash"): instances do not name their kretprobe. */
#if kernel_before(5, 11)
static inline struct kretprobe *get_kretprobe(struct kretprobe_instance *instance)
{
	return instance->rp;
}
#endif

/* The error of register_kprobe() for an address inside an instruction: arch_prepare_kprobe(). */
#if defined(CONFIG_X86) || defined(CONFIG_RISCV) || defined(CONFIG_SPARC64)
#define KMODLAB_ERRNO_INSIDE_INSTRUCTION	EILSEQ
#else
#define KMODLAB_ERRNO_INSIDE_INSTRUCTION	EINVAL
#endif

/* Ppc64 keeps a module's init code: module_init_section() in arch/powerpc/kernel/module_64.c. */
#define KMODLAB_KEEPS_INIT	IS_ENABLED(CONFIG_PPC64)

#endif
