// SPDX-License-Identifier: MIT OR Apache-2.0
/* Taking payloads apart and putting answers together. */
#include "agent.h"

#include <poll.h>
#include <pthread.h>

int control_fd = -1;
static pthread_mutex_t control_lock = PTHREAD_MUTEX_INITIALIZER;

static const uint8_t *take(struct job *job, size_t size)
{
	const uint8_t *at = job->next;

	if (job->malformed || (size_t)(job->end - job->next) < size) {
		job->malformed = true;
		return NULL;
	}
	job->next += size;
	return at;
}

static uint64_t take_number(struct job *job, unsigned int size)
{
	const uint8_t *at = take(job, size);
	uint64_t value = 0;

	for (unsigned int i = 0; at && i < size; i++)
		value |= (uint64_t)at[i] << (8 * i);
	return value;
}

uint8_t take_u8(struct job *job)
{
	return (uint8_t)take_number(job, 1);
}

uint32_t take_u32(struct job *job)
{
	return (uint32_t)take_number(job, 4);
}

uint64_t take_u64(struct job *job)
{
	return take_number(job, 8);
}

const uint8_t *take_bytes(struct job *job, size_t *size)
{
	const uint8_t *at;

	*size = take_u32(job);
	at = take(job, *size);
	if (!at)
		*size = 0;
	return at;
}

char *take_string(struct job *job)
{
	uint8_t *start = job->next;
	size_t size;
	const uint8_t *at = take_bytes(job, &size);

	if (!at || memchr(at, 0, size)) {
		job->malformed = true;
		return NULL;
	}
	/* Moved over its own length, it leaves room for the NUL. */
	memmove(start, at, size);
	start[size] = 0;
	return (char *)start;
}

char **take_strings(struct job *job)
{
	size_t count = take_u32(job);
	char **strings = NULL;

	/* Each takes four bytes at least, so this also bounds what is allocated. */
	if (job->malformed || count > (size_t)(job->end - job->next) / 4) {
		job->malformed = true;
		return NULL;
	}
	strings = calloc(count + 1, sizeof(*strings));
	if (!strings)
		job->malformed = true;
	for (size_t i = 0; i < count && !job->malformed; i++)
		strings[i] = take_string(job);
	return strings;
}

bool take_end(struct job *job)
{
	if (!job->malformed && job->next == job->end)
		return true;
	reply_error(job->id, "malformed request");
	return false;
}

static void store(uint8_t *at, uint64_t value, unsigned int size)
{
	for (unsigned int i = 0; i < size; i++)
		at[i] = (uint8_t)(value >> (8 * i));
}

void store_u32(uint8_t *at, uint32_t value)
{
	store(at, value, 4);
}

void store_u64(uint8_t *at, uint64_t value)
{
	store(at, value, 8);
}

static void put(struct frame *frame, uint64_t value, unsigned int size)
{
	if (sizeof(frame->data) - frame->size < size)
		return;
	store(frame->data + frame->size, value, size);
	frame->size += size;
}

void put_u8(struct frame *frame, uint8_t value)
{
	put(frame, value, 1);
}

void put_u32(struct frame *frame, uint32_t value)
{
	put(frame, value, 4);
}

void put_u64(struct frame *frame, uint64_t value)
{
	put(frame, value, 8);
}

void put_bytes(struct frame *frame, const void *bytes, size_t size)
{
	size_t room = sizeof(frame->data) - frame->size;

	if (room < 4)
		return;
	if (size > room - 4)
		size = room - 4;
	put_u32(frame, (uint32_t)size);
	if (size)
		memcpy(frame->data + frame->size, bytes, size);
	frame->size += size;
}

void put_string(struct frame *frame, const char *string)
{
	put_bytes(frame, string, strlen(string));
}

int write_all(int fd, const void *data, size_t size)
{
	const uint8_t *at = data;

	while (size) {
		ssize_t written = write(fd, at, size);

		if (written < 0 && errno == EAGAIN) {
			struct pollfd room = { .fd = fd, .events = POLLOUT };

			poll(&room, 1, -1);
		} else if (written < 0 && errno != EINTR) {
			return errno;
		} else if (written > 0) {
			at += written;
			size -= (size_t)written;
		}
	}
	return 0;
}

static void store_head(uint8_t *data, enum reply kind, uint32_t id)
{
	data[4] = (uint8_t)kind;
	store_u32(data + 5, id);
}

static void send_all(uint8_t *data, size_t size)
{
	store_u32(data, (uint32_t)(size - 4));
	pthread_mutex_lock(&control_lock);
	/* If the host is gone there is nobody to tell. */
	write_all(control_fd, data, size);
	pthread_mutex_unlock(&control_lock);
}

void begin(struct frame *frame, enum reply kind, uint32_t id)
{
	frame->size = FRAME_HEAD;
	store_head(frame->data, kind, id);
}

void send_frame(struct frame *frame)
{
	send_all(frame->data, frame->size);
}

void send_chunk(struct chunk *chunk, enum reply kind, uint32_t id, uint32_t field, size_t size)
{
	_Static_assert(offsetof(struct chunk, data) == FRAME_HEAD + 4, "head and data must touch");
	store_head(chunk->head, kind, id);
	store_u32(chunk->head + FRAME_HEAD, field);
	send_all(chunk->head, FRAME_HEAD + 4 + size);
}

void reply_done(uint32_t id, int error, uint64_t count, bool end)
{
	struct frame frame;

	begin(&frame, REPLY_DONE, id);
	put_u32(&frame, generic_errno(error));
	put_u64(&frame, count);
	put_u8(&frame, end);
	send_frame(&frame);
}

void reply_started(uint32_t id, uint32_t pid)
{
	struct frame frame;

	begin(&frame, REPLY_STARTED, id);
	put_u32(&frame, pid);
	send_frame(&frame);
}

void reply_error(uint32_t id, const char *message)
{
	struct frame frame;

	begin(&frame, REPLY_ERROR, id);
	put_string(&frame, message);
	send_frame(&frame);
}

void reply_taken(uint32_t bytes)
{
	struct frame frame;

	begin(&frame, REPLY_TAKEN, 0);
	put_u32(&frame, bytes);
	send_frame(&frame);
}
