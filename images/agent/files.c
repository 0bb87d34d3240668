// SPDX-License-Identifier: MIT OR Apache-2.0
/* Files, directories, and waiting for a file's content. */
#include "agent.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>

enum write_mode { WRITE_TRUNCATE, WRITE_APPEND, WRITE_CREATE };

enum condition { WAIT_EXISTS, WAIT_ABSENT, WAIT_EQUALS, WAIT_CONTAINS, WAIT_NOT_EQUALS, WAIT_COUNT };

/* How much of a file a condition looks at, and how much of it the answer shows. */
#define WAIT_READ (256 * 1024)
#define WAIT_SHOW 4096

void handle_read_file(struct job *job)
{
	const char *path = take_string(job);
	uint64_t limit = take_u64(job), count = 0;
	struct chunk *chunk;
	bool end = false;
	int fd, error = 0;

	if (!take_end(job))
		return;
	/* Where there is nothing to read now, say so (EAGAIN) instead of waiting. */
	fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC | O_NOCTTY);
	if (fd < 0)
		return reply_done(job->id, errno, 0, false);
	chunk = malloc(sizeof(*chunk));
	if (!chunk)
		error = ENOMEM;
	while (!error && !end && count < limit) {
		size_t part = limit - count < CHUNK_SIZE ? (size_t)(limit - count) : CHUNK_SIZE;
		ssize_t got = read(fd, chunk->data, part);

		if (got < 0 && errno != EINTR) {
			error = errno;
		} else if (got == 0) {
			end = true;
		} else if (got > 0) {
			send_chunk(chunk, REPLY_DATA, job->id, (uint32_t)got, (size_t)got);
			count += (uint64_t)got;
		}
	}
	free(chunk);
	close(fd);
	reply_done(job->id, error, count, end);
}

static int open_to_write(const char *path, enum write_mode mode, uint32_t permissions)
{
	int flags = O_WRONLY | O_CLOEXEC | O_NOCTTY | (mode == WRITE_APPEND ? O_APPEND : O_TRUNC);
	int fd;

	if (mode == WRITE_CREATE)
		return open(path, flags | O_CREAT | O_EXCL, permissions);
	fd = open(path, flags);
	if (fd >= 0 || errno != ENOENT)
		return fd;
	fd = open(path, flags | O_CREAT, permissions);
	/* What file systems that are not for creating files in, such as tracefs, say to a misspelt name. */
	if (fd < 0 && (errno == EACCES || errno == EPERM))
		errno = ENOENT;
	return fd;
}

void handle_write_file(struct job *job)
{
	const char *path = take_string(job);
	uint8_t mode = take_u8(job);
	uint32_t permissions = take_u32(job);
	size_t size, count = 0;
	const uint8_t *data = take_bytes(job, &size);
	int fd, error = 0;

	if (mode > WRITE_CREATE)
		job->malformed = true;
	if (!take_end(job))
		return;
	fd = open_to_write(path, mode, permissions);
	if (fd < 0)
		return reply_done(job->id, errno, 0, false);
	while (!error && count < size) {
		ssize_t written = write(fd, data + count, size - count);

		if (written < 0 && errno != EINTR)
			error = errno;
		else if (written == 0)
			error = EIO;
		else if (written > 0)
			count += (size_t)written;
	}
	if (close(fd) && !error)
		error = errno;
	reply_done(job->id, error, count, count == size);
}

void handle_make_dir(struct job *job)
{
	const char *path = take_string(job);
	uint32_t permissions = take_u32(job);

	if (take_end(job))
		reply_done(job->id, mkdir(path, permissions) ? errno : 0, 0, true);
}

void handle_remove(struct job *job)
{
	const char *path = take_string(job);

	/* remove(3) is unlink, or rmdir for a directory. */
	if (take_end(job))
		reply_done(job->id, remove(path) ? errno : 0, 0, true);
}

static uint8_t letter(mode_t mode)
{
	switch (mode & S_IFMT) {
	case S_IFREG:
		return 'f';
	case S_IFDIR:
		return 'd';
	case S_IFLNK:
		return 'l';
	case S_IFCHR:
		return 'c';
	case S_IFBLK:
		return 'b';
	case S_IFIFO:
		return 'p';
	case S_IFSOCK:
		return 's';
	default:
		return '?';
	}
}

/* Appends the entry and returns the new size. There is room: a name has at most 255 bytes. */
static size_t add_entry(uint8_t *data, size_t size, const char *name, const struct stat *file)
{
	size_t length = strlen(name);

	store_u32(data + size, (uint32_t)length);
	memcpy(data + size + 4, name, length);
	size += 4 + length;
	data[size] = letter(file->st_mode);
	store_u64(data + size + 1, (uint64_t)file->st_size);
	store_u32(data + size + 9, file->st_mode & 07777);
	return size + 13;
}

static int list(DIR *dir, uint32_t id, struct chunk *chunk, uint64_t *total)
{
	size_t size = 0;
	uint32_t count = 0;
	int error;

	for (;;) {
		struct dirent *entry;
		struct stat file;

		errno = 0;
		entry = readdir(dir);
		error = errno;
		if (count && (!entry || size > CHUNK_SIZE - 512)) {
			send_chunk(chunk, REPLY_ENTRIES, id, count, size);
			*total += count;
			size = count = 0;
		}
		if (!entry)
			return error;
		if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, ".."))
			continue;
		/* One that has gone since is not there. */
		if (fstatat(dirfd(dir), entry->d_name, &file, AT_SYMLINK_NOFOLLOW))
			continue;
		size = add_entry(chunk->data, size, entry->d_name, &file);
		count++;
	}
}

void handle_list(struct job *job)
{
	const char *path = take_string(job);
	struct chunk *chunk;
	uint64_t total = 0;
	DIR *dir;
	int error = ENOMEM;

	if (!take_end(job))
		return;
	dir = opendir(path);
	if (!dir)
		return reply_done(job->id, errno, 0, false);
	chunk = malloc(sizeof(*chunk));
	if (chunk)
		error = list(dir, job->id, chunk, &total);
	free(chunk);
	closedir(dir);
	reply_done(job->id, error, total, !error);
}

static size_t trimmed(const char *text, size_t size)
{
	while (size && strchr(" \t\r\n", text[size - 1]))
		size--;
	return size;
}

/* Reads as much as there is room for; what it could not read counts as not there. */
static size_t read_content(const char *path, char *content, size_t room)
{
	int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC | O_NOCTTY);
	size_t size = 0;
	ssize_t got = 1;

	if (fd < 0)
		return 0;
	while (size < room && (got > 0 || (got < 0 && errno == EINTR))) {
		got = read(fd, content + size, room - size);
		if (got > 0)
			size += (size_t)got;
	}
	close(fd);
	return size;
}

static bool holds(const char *path, enum condition condition, const uint8_t *value, size_t value_size,
		  char *content, size_t *size)
{
	struct stat file;
	bool there = !lstat(path, &file);
	bool equal;

	*size = 0;
	if (condition == WAIT_EXISTS)
		return there;
	if (condition == WAIT_ABSENT)
		return !there;
	if (!there)
		return false;
	*size = trimmed(content, read_content(path, content, WAIT_READ));
	if (condition == WAIT_CONTAINS)
		return memmem(content, *size, value, value_size);
	equal = *size == value_size && !memcmp(content, value, value_size);
	return equal == (condition == WAIT_EQUALS);
}

void handle_wait_for(struct job *job)
{
	const char *path = take_string(job);
	uint8_t condition = take_u8(job);
	size_t value_size, size;
	const uint8_t *value = take_bytes(job, &value_size);
	int64_t deadline = now() + (int64_t)take_u32(job) * 1000000;
	struct frame frame;
	char *content;
	int error = 0;

	if (condition >= WAIT_COUNT)
		job->malformed = true;
	if (!take_end(job))
		return;
	content = malloc(WAIT_READ);
	if (!content)
		return reply_error(job->id, "out of memory");
	value_size = trimmed((const char *)value, value_size);
	while (!holds(path, condition, value, value_size, content, &size) && !error) {
		if (now() >= deadline)
			error = ETIMEDOUT;
		else
			sleep_ms(2);
	}
	begin(&frame, REPLY_WAITED, job->id);
	put_u32(&frame, generic_errno(error));
	put_bytes(&frame, content, size < WAIT_SHOW ? size : WAIT_SHOW);
	send_frame(&frame);
	free(content);
}
