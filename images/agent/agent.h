/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * The guest agent: what its files share. PROTOCOL.md, beside this file, describes what it speaks.
 *
 * Everything that comes in is parsed by byte, so neither byte order nor word size matters. A request that may block
 * has a thread of its own; a thread that has something to say blocks until the host has taken it, so nothing piles up.
 */
#ifndef KMODLAB_AGENT_H
#define KMODLAB_AGENT_H

#define _GNU_SOURCE
#define _FILE_OFFSET_BITS 64
#define _TIME_BITS 64

#include <errno.h>
#include <spawn.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PROTOCOL_VERSION 1

/* The greatest length of a frame, as its first field says it. */
#define FRAME_LIMIT (1u << 20)
/* Length, kind, request id. */
#define FRAME_HEAD 9
/*
 * What the host may have under way to us where the control port is a serial line: well below what the kernel buffers of
 * a line, since what comes after that is lost.
 */
#define LINE_WINDOW (16 * 1024)
/* Where programs are looked for. */
#define SEARCH_PATH "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
/* Bytes of data in one frame of a long answer; also what virtio-serial takes in one write. */
#define CHUNK_SIZE (32 * 1024)

enum request {
	REQUEST_HELLO = 1,
	REQUEST_RUN,
	REQUEST_SIGNAL,
	REQUEST_LOAD_MODULE,
	REQUEST_UNLOAD_MODULE,
	REQUEST_READ_FILE,
	REQUEST_WRITE_FILE,
	REQUEST_MAKE_DIR,
	REQUEST_REMOVE,
	REQUEST_LIST,
	REQUEST_STREAM,
	REQUEST_STOP_STREAM,
	REQUEST_SYNC,
	REQUEST_WAIT_FOR,
	REQUEST_POWER_OFF,
	REQUEST_START_COVER,
	REQUEST_COVER,
};

enum reply {
	REPLY_HELLO = 129,
	REPLY_STARTED,
	REPLY_STDOUT,
	REPLY_STDERR,
	REPLY_EXIT,
	REPLY_DATA,
	REPLY_ENTRIES,
	REPLY_DONE,
	REPLY_WAITED,
	REPLY_SYNCED,
	REPLY_ERROR,
	REPLY_TAKEN,
};

enum port { PORT_LOG, PORT_TRACE, PORT_COUNT };

/* A request under way. */
struct job {
	uint32_t id;
	void (*handle)(struct job *job);
	/* What it has the kernel execute counts. */
	bool covered;
	/* What of the payload has not been parsed yet. */
	uint8_t *next, *end;
	/* The payload was too short, or held a value that makes no sense. */
	bool malformed;
	size_t size;
	uint8_t payload[];
};

/* A short answer being put together. */
struct frame {
	size_t size;
	uint8_t data[FRAME_HEAD + 5 * 1024];
};

/* A part of a long answer: `head` leaves room for the frame's head and one 32-bit field. */
struct chunk {
	uint8_t head[FRAME_HEAD + 4];
	uint8_t data[CHUNK_SIZE];
};

/* main.c: one line on the console (or standard error), with the agent's name before it. */
void say(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* Nanoseconds of the monotonic clock. */
int64_t now(void);
void sleep_ms(unsigned int ms);
_Noreturn void power_off(void);
/* Serving on inherited descriptors: the machine is not ours to set up or to switch off. */
extern bool visiting;

/* boot.c */
void boot(void);
int open_port(const char *name);
/* The mounted tracefs, or an empty string; looked up once. */
const char *tracing_dir(void);

/* wire.c: taking a payload apart. After a failure all of these return zeroes and `malformed` is set. */
uint8_t take_u8(struct job *job);
uint32_t take_u32(struct job *job);
uint64_t take_u64(struct job *job);
const uint8_t *take_bytes(struct job *job, size_t *size);
/* Terminated by NUL; a NUL inside is malformed. */
char *take_string(struct job *job);
/* A vector ended by NULL, to be freed; NULL on failure. */
char **take_strings(struct job *job);
/* Whether all was there and nothing is left. Answers with an error if not. */
bool take_end(struct job *job);

/* wire.c: answering. */
void begin(struct frame *frame, enum reply kind, uint32_t id);
void put_u8(struct frame *frame, uint8_t value);
void put_u32(struct frame *frame, uint32_t value);
void put_u64(struct frame *frame, uint64_t value);
/* Cut to what fits. */
void put_bytes(struct frame *frame, const void *bytes, size_t size);
void put_string(struct frame *frame, const char *string);
void store_u32(uint8_t *at, uint32_t value);
void store_u64(uint8_t *at, uint64_t value);
void send_frame(struct frame *frame);
/* `field` is what the payload begins with: the number of bytes, or of entries. */
void send_chunk(struct chunk *chunk, enum reply kind, uint32_t id, uint32_t field, size_t size);
/* `error` is a native errno. */
void reply_done(uint32_t id, int error, uint64_t count, bool end);
void reply_started(uint32_t id, uint32_t pid);
void reply_error(uint32_t id, const char *message);
void reply_taken(uint32_t bytes);
/* All of it, however often write(2) must be called; an errno or 0. */
int write_all(int fd, const void *data, size_t size);

/* serve.c: reads requests and has them handled; returns at the end of the stream when visiting. */
void serve(int control);
extern int control_fd;

/* numbers.c: errno and signal numbers as most architectures have them (asm-generic), which the host uses. */
uint32_t generic_errno(int native);
uint32_t generic_signal(int native);
/* -1 where there is none. */
int native_signal(uint32_t generic);

/* module.c: an errno or 0. */
int load_module(const char *path, const char *params, uint32_t flags);
int unload_module(const char *name, bool force);

/* stream.c */
void open_streams(int log, int trace);
/* Copies a file to a port from now on; an errno or 0. With `answer` its end is reported under `id`. */
int start_stream(const char *path, enum port port, uint32_t id, bool answer);
/* Has every port carry what is there, then the line that a greeting leaves, and counts bytes from there. */
void mark_ports(uint32_t id);

/* kcov.c: which code of the kernel is executed, once somebody wants to know. */
struct cover;
/* Has this thread covered from now on; NULL where it is not. */
struct cover *cover_thread(void);
void uncover_thread(struct cover *cover);
/* As posix_spawnp(3), of a program that is covered, where `cover` is not NULL then. */
int spawn_covered(pid_t *pid, posix_spawn_file_actions_t *actions, const posix_spawnattr_t *attributes,
		  char **argv, char **env, struct cover **cover);
/* Once whoever was covered is no more; NULL is nobody. */
void cover_end(struct cover *cover);
/* What is started by `spawn_covered`; returns only where the program cannot be executed. */
int run_covered(char **arguments);

/* Starts a detached thread; an errno or 0. */
int start_thread(void *(*body)(void *argument), void *argument);

/* The handlers, one for each request. */
void handle_hello(struct job *job);
void handle_run(struct job *job);
void handle_signal(struct job *job);
void handle_load_module(struct job *job);
void handle_unload_module(struct job *job);
void handle_read_file(struct job *job);
void handle_write_file(struct job *job);
void handle_make_dir(struct job *job);
void handle_remove(struct job *job);
void handle_list(struct job *job);
void handle_stream(struct job *job);
void handle_stop_stream(struct job *job);
void handle_sync(struct job *job);
void handle_wait_for(struct job *job);
void handle_power_off(struct job *job);
void handle_start_cover(struct job *job);
void handle_cover(struct job *job);

#endif
