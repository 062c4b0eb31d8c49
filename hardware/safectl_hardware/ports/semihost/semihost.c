/* Operation numbers and argument blocks: "Semihosting for AArch32 and AArch64", Arm. */
#include "semihost.h"

#include <stdint.h>

#include "board.h"
#include "port.h"

enum { SYS_OPEN = 0x01, SYS_WRITE = 0x05, SYS_READ = 0x06, SYS_EXIT_EXTENDED = 0x20 };
enum { MODE_READ_BINARY = 1, MODE_WRITE_BINARY = 5 };

#define APPLICATION_EXIT 0x20026u

static int open_file(const char *path, size_t length, uint32_t mode) {
    const uint32_t arguments[3] = {(uint32_t)(uintptr_t)path, mode, (uint32_t)length};
    return (int)port_semihost(SYS_OPEN, arguments);
}

int semihost_open_read(const char *path, size_t length) {
    return open_file(path, length, MODE_READ_BINARY);
}

int semihost_open_write(const char *path, size_t length) {
    return open_file(path, length, MODE_WRITE_BINARY);
}

/* Both calls return the number of bytes that were not transferred. */
static int transfer(uint32_t operation, int handle, uintptr_t address, size_t bytes) {
    while (bytes > 0u) {
        const uint32_t arguments[3] = {(uint32_t)handle, (uint32_t)address, (uint32_t)bytes};
        const uint32_t left = port_semihost(operation, arguments);
        if (left >= bytes) {
            return -1;
        }
        address += bytes - left;
        bytes = left;
    }
    return 0;
}

int semihost_read(int handle, void *data, size_t bytes) {
    return transfer(SYS_READ, handle, (uintptr_t)data, bytes);
}

int semihost_write(int handle, const void *data, size_t bytes) {
    return transfer(SYS_WRITE, handle, (uintptr_t)data, bytes);
}

void board_exit(int status) {
    const uint32_t arguments[2] = {APPLICATION_EXIT, (uint32_t)status};
    for (;;) {
        (void)port_semihost(SYS_EXIT_EXTENDED, arguments);
    }
}
