// SPDX-License-Identifier: MIT OR Apache-2.0
/*
 * parrot: an agent that says what it is told to, whatever that is. It is linked with the real one's sources, of which it
 * uses what brings a guest up.
 *
 * Over the control port it first gets the length of its script, 4 bytes, little-endian, and then the script: acts of one
 * byte for what to do, 4 for how often and 4 for the length of the bytes that follow. It writes them to the control (0),
 * log (1) or trace port (2), or (3) takes a request and does not look at it.
 */
#include "agent.h"

#undef main

#define TAKE_REQUEST 3

static int control;

/* The host's end may not be there yet, or for a moment, when a guest is restored. */
static void read_all(void *to, size_t size)
{
	uint8_t *next = to;

	while (size) {
		ssize_t got = read(control, next, size);

		if (got > 0) {
			next += got;
			size -= (size_t)got;
		} else {
			sleep_ms(1);
		}
	}
}

static uint32_t number(const uint8_t *at)
{
	return (uint32_t)at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
}

static uint8_t *read_sized(uint32_t *size)
{
	uint8_t head[4], *bytes;

	read_all(head, sizeof(head));
	*size = number(head);
	bytes = malloc(*size + 1u);
	if (!bytes)
		power_off();
	read_all(bytes, *size);
	return bytes;
}

static void take_request(void)
{
	uint32_t size;

	free(read_sized(&size));
}

int main(void)
{
	uint32_t size, at = 0;
	uint8_t *script;
	int ports[3];

	boot();
	ports[0] = control = open_port("kmodlab.control");
	ports[1] = open_port("kmodlab.log");
	ports[2] = open_port("kmodlab.trace");
	say("parrot is ready");
	script = read_sized(&size);
	while (at + 9 <= size) {
		uint8_t act = script[at];
		uint32_t times = number(script + at + 1), length = number(script + at + 5);

		at += 9;
		for (uint32_t i = 0; i < times; i++)
			if (act == TAKE_REQUEST)
				take_request();
			else if (write_all(ports[act], script + at, length))
				say("cannot write");
		at += length;
	}
	for (;;)
		take_request();
}
