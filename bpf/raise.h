/* Packets for the daemon that no socket can take, copied whole into a ring. */
#pragma once

#include "packet.h"

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, HF_RAISED_BYTES);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} raised SEC(".maps");
