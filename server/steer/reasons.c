#include "steer/steer.h"

#define NAME(id, name, ...)  name,
#define TEXT(id, name, text) text,

static const char *const hooks[] = {HF_HOOKS(NAME)};
static const char *const verdicts[] = {HF_VERDICTS(NAME)};
static const char *const reasons[] = {HF_REASONS(NAME)};
static const char *const texts[] = {HF_REASONS(TEXT)};

const char *hf_hook_name(enum hf_hook hook)
{
	return (unsigned)hook < HF_HOOK_COUNT ? hooks[hook] : "unknown";
}

const char *hf_verdict_name(enum hf_verdict verdict)
{
	return (unsigned)verdict < HF_VERDICT_COUNT ? verdicts[verdict] : "unknown";
}

const char *hf_reason_name(enum hf_reason reason)
{
	return (unsigned)reason < HF_REASON_COUNT ? reasons[reason] : "unknown";
}

const char *hf_reason_text(enum hf_reason reason)
{
	return (unsigned)reason < HF_REASON_COUNT ? texts[reason]
						  : "a program newer than the daemon";
}
