// SPDX-License-Identifier: MIT OR Apache-2.0
/* Kernel modules, by the system calls themselves, for which the C library has no functions. */
#include "agent.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>

/* For kernels without finit_module, which cannot take flags. */
static int init_module_from(int fd, const char *params)
{
	struct stat file;
	void *image;
	int error = 0;

	if (fstat(fd, &file))
		return errno;
	image = mmap(NULL, (size_t)file.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
	if (image == MAP_FAILED)
		return errno;
	if (syscall(SYS_init_module, image, (unsigned long)file.st_size, params))
		error = errno;
	munmap(image, (size_t)file.st_size);
	return error;
}

int load_module(const char *path, const char *params, uint32_t flags)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	int error = 0;

	if (fd < 0)
		return errno;
	if (syscall(SYS_finit_module, fd, params, (int)flags)) {
		error = errno;
		if (error == ENOSYS && !flags)
			error = init_module_from(fd, params);
	}
	close(fd);
	return error;
}

int unload_module(const char *name, bool force)
{
	/* Linux 3.13 and later never wait; before, this asks them not to. */
	unsigned int flags = O_NONBLOCK | (force ? O_TRUNC : 0);

	return syscall(SYS_delete_module, name, flags) ? errno : 0;
}

void handle_load_module(struct job *job)
{
	const char *path = take_string(job);
	const char *params = take_string(job);
	uint32_t flags = take_u32(job);

	if (take_end(job))
		reply_done(job->id, load_module(path, params, flags), 0, true);
}

void handle_unload_module(struct job *job)
{
	const char *name = take_string(job);
	uint8_t force = take_u8(job);

	if (take_end(job))
		reply_done(job->id, unload_module(name, force), 0, true);
}
