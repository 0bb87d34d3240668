// SPDX-License-Identifier: MIT OR Apache-2.0
/* Copying files that go on growing, such as trace_pipe and /dev/kmsg, to the log and trace ports. */
#include "agent.h"

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/eventfd.h>

#define BUFFER_SIZE (64 * 1024)
/* Room for whatever one read may give whole: a record of /dev/kmsg has up to 8 KiB, trace_pipe gives a page. */
#define READ_ROOM (16 * 1024)
/*
 * The most that one turn copies, so that a source that fills as fast as it is read holds nobody up. It is more than
 * the kernel buffers, so what was in the source when the turn began is out when it ends.
 */
#define TURN_LIMIT (16u << 20)
/* How soon to look again at a file that was at its end: it may grow, or be a FIFO that gets a writer. */
#define LOOK_MS 10

struct stream {
	struct stream *next;
	uint32_t id;
	enum port port;
	int fd;
	/* An eventfd: something below was changed. */
	int wake;
	bool answer;
	bool stop;
	/* The last turn asked for and the last one done, and whether that left nothing. */
	uint64_t wanted, done;
	bool drained;
	uint8_t buffer[BUFFER_SIZE];
};

struct target {
	int fd;
	pthread_mutex_t lock;
	/* Bytes written since the last mark. */
	uint64_t count;
};

static struct target targets[PORT_COUNT] = {
	{ -1, PTHREAD_MUTEX_INITIALIZER, 0 },
	{ -1, PTHREAD_MUTEX_INITIALIZER, 0 },
};

static struct stream *streams;
static uint64_t turns;
static pthread_mutex_t streams_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t turn_done = PTHREAD_COND_INITIALIZER;

void open_streams(int log, int trace)
{
	targets[PORT_LOG].fd = log;
	targets[PORT_TRACE].fd = trace;
}

static int write_port(enum port port, const void *data, size_t size)
{
	struct target *target = &targets[port];
	int error;

	pthread_mutex_lock(&target->lock);
	error = write_all(target->fd, data, size);
	if (!error)
		target->count += size;
	pthread_mutex_unlock(&target->lock);
	return error;
}

/* Fills the buffer with what is there. Returns an errno: EAGAIN for all read, 0 for a full buffer, ENODATA at the end. */
static int fill(struct stream *stream, size_t *size)
{
	static const char lost[] = "kmodlab-agent: records were overwritten before they could be read\n";

	*size = 0;
	while (*size <= BUFFER_SIZE - READ_ROOM) {
		ssize_t got = read(stream->fd, stream->buffer + *size, BUFFER_SIZE - *size);

		if (got > 0) {
			*size += (size_t)got;
		} else if (got == 0) {
			return ENODATA;
		} else if (errno == EPIPE) {
			/* /dev/kmsg says it once and goes on with the oldest record left. */
			memcpy(stream->buffer + *size, lost, sizeof(lost) - 1);
			*size += sizeof(lost) - 1;
		} else if (errno != EINTR) {
			return errno;
		}
	}
	return 0;
}

/* Copies what is there; returns as `fill` does, 0 meaning that there was more than one turn takes. */
static int take_turn(struct stream *stream)
{
	size_t moved = 0, size;
	int state = 0, error = 0;

	while (!state && !error && moved < TURN_LIMIT) {
		state = fill(stream, &size);
		if (size)
			error = write_port(stream->port, stream->buffer, size);
		moved += size;
	}
	return error ? error : state;
}

static void wait_for_more(struct stream *stream, bool at_end)
{
	struct pollfd polled[] = {
		{ .fd = stream->wake, .events = POLLIN },
		/* A file at its end would turn readable at once, or hung up. */
		{ .fd = at_end ? -1 : stream->fd, .events = POLLIN },
	};
	uint64_t waste;

	poll(polled, 2, at_end ? LOOK_MS : -1);
	if (polled[0].revents && read(stream->wake, &waste, sizeof(waste)) < 0)
		return;
}

static void forget(struct stream *stream)
{
	struct stream **link = &streams;

	while (*link != stream)
		link = &(*link)->next;
	*link = stream->next;
	pthread_cond_broadcast(&turn_done);
}

static void *copy(void *argument)
{
	struct stream *stream = argument;
	bool stop = false;
	int state = 0;

	if (stream->answer)
		reply_started(stream->id, 0);
	while (!stop) {
		uint64_t wanted;

		pthread_mutex_lock(&streams_lock);
		stop = stream->stop;
		wanted = stream->wanted;
		pthread_mutex_unlock(&streams_lock);

		state = take_turn(stream);

		pthread_mutex_lock(&streams_lock);
		stream->done = wanted;
		stream->drained = state;
		stop |= state && state != EAGAIN && state != ENODATA;
		if (stop)
			forget(stream);
		else
			pthread_cond_broadcast(&turn_done);
		pthread_mutex_unlock(&streams_lock);
		if (!stop && state)
			wait_for_more(stream, state == ENODATA);
	}
	if (state == EAGAIN || state == ENODATA)
		state = 0;
	if (stream->answer)
		reply_done(stream->id, state, 0, true);
	else
		say("/dev/kmsg: %s", strerror(state));
	close(stream->fd);
	close(stream->wake);
	free(stream);
	return NULL;
}

int start_stream(const char *path, enum port port, uint32_t id, bool answer)
{
	struct stream *stream = calloc(1, sizeof(*stream));
	int error = 0;

	if (!stream)
		return ENOMEM;
	stream->id = id;
	stream->port = port;
	stream->answer = answer;
	stream->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	stream->fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC | O_NOCTTY);
	if (stream->wake < 0 || stream->fd < 0)
		error = errno;
	pthread_mutex_lock(&streams_lock);
	if (!error)
		error = start_thread(copy, stream);
	if (!error) {
		stream->next = streams;
		streams = stream;
	}
	pthread_mutex_unlock(&streams_lock);
	if (!error)
		return 0;
	if (stream->fd >= 0)
		close(stream->fd);
	if (stream->wake >= 0)
		close(stream->wake);
	free(stream);
	return error;
}

static void wake(const struct stream *stream)
{
	const uint64_t one = 1;

	/* A full counter is awake anyway. */
	if (write(stream->wake, &one, sizeof(one)) < 0)
		return;
}

void handle_stream(struct job *job)
{
	const char *path = take_string(job);
	uint8_t port = take_u8(job);
	int error;

	if (port >= PORT_COUNT)
		job->malformed = true;
	if (!take_end(job))
		return;
	error = start_stream(path, port, job->id, true);
	if (error)
		reply_done(job->id, error, 0, true);
}

void handle_stop_stream(struct job *job)
{
	uint32_t id = take_u32(job);
	int error = ESRCH;

	if (!take_end(job))
		return;
	pthread_mutex_lock(&streams_lock);
	for (struct stream *stream = streams; stream; stream = stream->next) {
		if (stream->answer && stream->id == id) {
			stream->stop = true;
			wake(stream);
			error = 0;
		}
	}
	pthread_mutex_unlock(&streams_lock);
	reply_done(job->id, error, 0, true);
}

/* Has every stream of the port do a whole turn, and waits for that. False if one of them left something. */
static bool turn_all(enum port port)
{
	bool drained, waiting = true;
	uint64_t turn;

	pthread_mutex_lock(&streams_lock);
	turn = ++turns;
	for (struct stream *stream = streams; stream; stream = stream->next) {
		if (stream->port == port) {
			stream->wanted = turn;
			wake(stream);
		}
	}
	while (waiting) {
		waiting = false;
		drained = true;
		for (struct stream *stream = streams; stream; stream = stream->next) {
			if (stream->port != port || stream->wanted < turn)
				continue;
			waiting |= stream->done < turn;
			drained &= stream->drained;
		}
		if (waiting)
			pthread_cond_wait(&turn_done, &streams_lock);
	}
	pthread_mutex_unlock(&streams_lock);
	return drained;
}

void mark_ports(uint32_t id)
{
	char line[64];
	int size = snprintf(line, sizeof(line), "\036kmodlab-agent: hello %u\n", id);

	for (enum port port = 0; port < PORT_COUNT; port++) {
		/* What was there before comes before, the log of the boot above all. */
		turn_all(port);
		pthread_mutex_lock(&targets[port].lock);
		write_all(targets[port].fd, line, (size_t)size);
		targets[port].count = 0;
		pthread_mutex_unlock(&targets[port].lock);
	}
}

void handle_sync(struct job *job)
{
	uint8_t port = take_u8(job);
	struct frame frame;
	bool drained;

	if (port >= PORT_COUNT)
		job->malformed = true;
	if (!take_end(job))
		return;
	drained = turn_all(port);
	begin(&frame, REPLY_SYNCED, job->id);
	pthread_mutex_lock(&targets[port].lock);
	put_u64(&frame, targets[port].count);
	pthread_mutex_unlock(&targets[port].lock);
	put_u8(&frame, drained);
	send_frame(&frame);
}
