/* What a session needs from a Cortex-M: a counter, the stack pointer, the semihosting trap. */
#ifndef PORT_H
#define PORT_H

#include <stdint.h>

#define SYSTICK_CONTROL (*(volatile uint32_t *)0xe000e010u)
#define SYSTICK_RELOAD (*(volatile uint32_t *)0xe000e014u)
#define SYSTICK_VALUE (*(volatile uint32_t *)0xe000e018u)
#define SYSTICK_MASK 0xffffffu

static inline void port_start_counter(void) {
    SYSTICK_RELOAD = SYSTICK_MASK;
    SYSTICK_VALUE = 0u;
    SYSTICK_CONTROL = 5u; /* processor clock, enabled, no interrupt */
    while (SYSTICK_VALUE == 0u) {
    }
}

static inline uint32_t port_counter(void) {
    return SYSTICK_VALUE;
}

/* The counter runs down through 24 bits. */
static inline uint32_t port_ticks(uint32_t before, uint32_t after) {
    return (before - after) & SYSTICK_MASK;
}

static inline uint32_t *port_stack_pointer(void) {
    uint32_t *pointer;
    __asm volatile("mov %0, sp" : "=r"(pointer));
    return pointer;
}

static inline uint32_t port_semihost(uint32_t operation, const void *arguments) {
    register uint32_t r0 __asm("r0") = operation;
    register const void *r1 __asm("r1") = arguments;
    __asm volatile("bkpt 0xab" : "+r"(r0) : "r"(r1) : "memory");
    return r0;
}

#endif
