/* Arm semihosting: files of the host and exit, without a C library. */
#ifndef SEMIHOST_H
#define SEMIHOST_H

#include <stddef.h>

/* Opens a file of the host; returns a handle or -1. */
int semihost_open_read(const char *path, size_t length);
int semihost_open_write(const char *path, size_t length);

/* Transfers exactly `bytes` bytes, waiting as long as it takes. Returns 0, or -1 at the end of the
 * file or on an error. */
int semihost_read(int handle, void *data, size_t bytes);
int semihost_write(int handle, const void *data, size_t bytes);

#endif
