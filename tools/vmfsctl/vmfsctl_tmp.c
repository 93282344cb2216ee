#include "tools/vmfsctl/vmfsctl.h"
const struct ctl_verb ctl_change_verbs[] = { { 0 } };
const struct ctl_verb ctl_volume_verbs[] = { { 0 } };
