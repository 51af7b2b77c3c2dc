#include "steer/internal.h"

#include <errno.h>

int steer_names_mode(struct steer *steer, enum hf_names_mode mode)
{
	static const __u32 zero;

	if (steer->settings.names_mode == mode)
		return 0;
	/* The other words are written with the value that they have. */
	steer->settings.names_mode = mode;
	return bpf_map_update_elem(steer->maps.settings, &zero, &steer->settings, BPF_ANY);
}

int steer_name_publish(struct steer *steer, const struct hf_name_key *key,
		       const struct hf_name *name)
{
	int r = bpf_map_update_elem(steer->maps.names, key, name, BPF_ANY);

	if (r == -E2BIG)
		steer->names_refused++;
	return r;
}

int steer_name_withdraw(struct steer *steer, const struct hf_name_key *key)
{
	int r = bpf_map_delete_elem(steer->maps.names, key);

	return r == -ENOENT ? 0 : r;
}

int steer_names_each(struct steer *steer,
		     bool (*each)(void *arg, const struct hf_name_key *, const struct hf_name *),
		     void *arg)
{
	struct hf_name_key key, next;
	const struct hf_name_key *previous = NULL;
	struct hf_name name;

	/* The bound: a key that is deleted meanwhile makes the kernel start again. */
	for (unsigned i = 0; i < 2 * HF_NAMES_MAX; i++) {
		int r = bpf_map_get_next_key(steer->maps.names, previous, &next);

		if (r == -ENOENT)
			return 0;
		if (r < 0)
			return r;
		if (!bpf_map_lookup_elem(steer->maps.names, &next, &name) &&
		    !each(arg, &next, &name))
			return 0;
		key = next;
		previous = &key;
	}
	return 0;
}

uint64_t steer_names_refused(const struct steer *steer)
{
	return steer->names_refused;
}
