/* SPDX-License-Identifier: Apache-2.0 */
/* cmd_move.h - the verbs of disks and machines that become tasks. */
#ifndef BM_CMD_MOVE_H
#define BM_CMD_MOVE_H

#include "tools/blkmirror/cli.h"

extern const struct cli_option move_relocate_options[], move_vm_relocate_options[];
int move_run_import(const struct cli *cli, const struct cli_args *args);
int move_run_export(const struct cli *cli, const struct cli_args *args);
int move_run_verify(const struct cli *cli, const struct cli_args *args);
int move_run_vm_relocate(const struct cli *cli, const struct cli_args *args);
int move_run_relocate(const struct cli *cli, const struct cli_args *args);

#endif
