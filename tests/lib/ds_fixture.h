/* SPDX-License-Identifier: Apache-2.0 */
/* ds_fixture.h - one dir:// datastore in a folder of the test's own, and words to speak of it. */
#ifndef BM_TESTS_DS_FIXTURE_H
#define BM_TESTS_DS_FIXTURE_H

#include "datastores/datastore_private.h"

#define MIB (UINT64_C(1) << 20)

extern char test_base[64];              /* the test's folder; the datastore is test_base/ds */
extern struct loop *test_loop;
extern struct datastore *test_ds;
extern struct err test_err;             /* of the last call */

/* For cmocka. */
int set_up(void **state);
int tear_down(void **state);

#define CASE(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

/* The path of a file in the datastore; good for the next two calls. */
const char *in(const char *name);
int open_ds(const char *url, const char *const *allowed);
void put_file(const char *name, const void *bytes, size_t len, uint64_t size_bytes);
bool exists(const char *name);
int create(const char *path, uint64_t size_bytes, enum provision provision);
struct ds_disk *open_disk(const char *path, unsigned flags, const char *journal);
struct ds_disk *must_open(const char *path, unsigned flags);
struct ds_disk_info disk_as_listed(const char *path);
bool is_same_copy(const char *path, const struct disk_identity *identity);
void assert_refused(int rc, enum err_id id);
uint64_t data_bytes_allocated(const char *name);
unsigned file_count(const char *folder);

#endif
