/* What a session needs from RISC-V: a counter, the stack pointer, the semihosting trap. */
#ifndef PORT_H
#define PORT_H

#include <stdint.h>

static inline void port_start_counter(void) {
}

/* Retired instructions, counting up. */
static inline uint32_t port_counter(void) {
    uint32_t value;
    __asm volatile(".option push\n"
                   ".option arch, +zicsr\n"
                   "csrr %0, minstret\n"
                   ".option pop"
                   : "=r"(value));
    return value;
}

static inline uint32_t port_ticks(uint32_t before, uint32_t after) {
    return after - before;
}

static inline uint32_t *port_stack_pointer(void) {
    uint32_t *pointer;
    __asm volatile("mv %0, sp" : "=r"(pointer));
    return pointer;
}

/* Three uncompressed instructions on one page mark the call. */
static inline uint32_t port_semihost(uint32_t operation, const void *arguments) {
    register uint32_t a0 __asm("a0") = operation;
    register const void *a1 __asm("a1") = arguments;
    __asm volatile(".option push\n"
                   ".option norvc\n"
                   ".balign 16\n"
                   "slli x0, x0, 0x1f\n"
                   "ebreak\n"
                   "srai x0, x0, 7\n"
                   ".option pop"
                   : "+r"(a0)
                   : "r"(a1)
                   : "memory");
    return a0;
}

#endif
