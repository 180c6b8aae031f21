/* The store's writing to disk: durable files, folders that appear and vanish as a whole. */
#pragma once

#include <gpulet/base.h>
#include <sys/stat.h>

/* name in folder dirfd holds these bytes, durably, or is as it was before. */
int disk_write(int dirfd, const char *name, const char *text, size_t bytes, struct err *err);
/* Rename and fsync both folders. */
int disk_move(int from_dirfd, const char *from, int to_dirfd, const char *to, struct err *err);
/* Remove a folder and everything in it; what is not there is no error. */
void disk_remove(int dirfd, const char *name);
/* Open a folder, making it if need be (mode 0700).  The fd or a negative errno. */
int disk_folder(int dirfd, const char *name, struct err *err);
/* Hash of a file's bytes. */
int disk_hash(int dirfd, const char *name, struct hash128 *ret, struct err *err);
/* -ENOSPC when fewer than `bytes` (and a reserve) are free in the folder's file system. */
int disk_room(int dirfd, uint64_t bytes, struct err *err);
