#include "steer/internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static int compare(const void *left, const void *right)
{
	const struct steer_counter *a = left, *b = right;
	int r = strcmp(a->interface, b->interface);

	if (r)
		return r;
	if (a->hook != b->hook)
		return a->hook < b->hook ? -1 : 1;
	if (a->verdict != b->verdict)
		return a->verdict < b->verdict ? -1 : 1;
	return a->reason < b->reason ? -1 : a->reason > b->reason;
}

/* Interfaces that are gone keep their number as a name. */
static void name_interface(struct steer *steer, uint32_t ifindex, char *ret_name)
{
	const struct rtnl_interface *interface = rtnl_interface_by_index(steer->rtnl, (int)ifindex);

	if (interface)
		memcpy(ret_name, interface->name, IF_NAMESIZE);
	else if (ifindex)
		snprintf(ret_name, IF_NAMESIZE, "#%u", ifindex);
}

static void read_counter(struct steer *steer, const struct hf_counter_key *key,
			 const struct hf_counter *per_cpu, int cpus, struct steer_counter *counter)
{
	name_interface(steer, key->ifindex, counter->interface);
	counter->hook = key->hook;
	counter->verdict = key->verdict;
	counter->reason = key->reason;
	for (int i = 0; i < cpus; i++) {
		counter->packets += per_cpu[i].packets;
		counter->bytes += per_cpu[i].bytes;
	}
}

int steer_counters(struct steer *steer, struct steer_counter **ret_counters, size_t *ret_count)
{
	int cpus = libbpf_num_possible_cpus(), r = 0;
	struct hf_counter_key key, next, *previous = NULL;
	struct steer_counter *counters;
	struct hf_counter *per_cpu;
	size_t count = 0, capacity = 64;

	if (cpus < 0)
		return cpus;
	counters = calloc(capacity, sizeof(*counters));
	per_cpu = calloc((size_t)cpus, sizeof(*per_cpu));
	if (!counters || !per_cpu) {
		r = -ENOMEM;
		goto out;
	}
	while (count < HF_COUNTERS_MAX) {
		if (bpf_map_get_next_key(steer->maps.counters, previous, &next) < 0)
			break;
		key = next;
		previous = &key;
		if (bpf_map_lookup_elem(steer->maps.counters, &key, per_cpu) < 0)
			continue;
		if (count == capacity) {
			struct steer_counter *more =
				realloc(counters, capacity * 2 * sizeof(*more));

			if (!more) {
				r = -ENOMEM;
				goto out;
			}
			memset(more + capacity, 0, capacity * sizeof(*more));
			counters = more;
			capacity *= 2;
		}
		read_counter(steer, &key, per_cpu, cpus, &counters[count++]);
	}
	qsort(counters, count, sizeof(*counters), compare);
	*ret_counters = counters;
	*ret_count = count;
	counters = NULL;
out:
	free(counters);
	free(per_cpu);
	return r;
}

/* The one number of a per-CPU array of the built-in steer program. */
static uint64_t sum_of(struct steer *steer, const char *name)
{
	int cpus = libbpf_num_possible_cpus();
	int map = bpf_object__find_map_fd_by_name(steer->objects[OBJECT_STEER], name);
	__u64 *each = cpus > 0 ? calloc((size_t)cpus, sizeof(*each)) : NULL, sum = 0;
	__u32 zero = 0;

	if (each && map >= 0 && !bpf_map_lookup_elem(map, &zero, each))
		for (int i = 0; i < cpus; i++)
			sum += each[i];
	free(each);
	return sum;
}

uint64_t steer_counter_overflow(struct steer *steer)
{
	return sum_of(steer, "counter_overflow");
}

uint64_t steer_attempts(struct steer *steer)
{
	return sum_of(steer, "attempts");
}
