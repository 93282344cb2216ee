/* SPDX-License-Identifier: Apache-2.0 */
/* commands.h - finding NOUN VERB and its help. */
#ifndef BM_COMMANDS_H
#define BM_COMMANDS_H

#include "tools/blkmirror/cli.h"

/* All of blkmirror; returns the exit code. */
int cli_main(int argc, char **argv);

#endif
