/* Vectors and start-up for a Cortex-M: the FPU if there is one, memory, main, exit. */
#include <stdint.h>

#include "board.h"

extern uint32_t _stack_top, _data_load, _data_start, _data_end, _bss_start, _bss_end;

int main(void);
void reset_handler(void);

#define COPROCESSOR_ACCESS (*(volatile uint32_t *)0xe000ed88u)
#define FAULT_STATUS 70

static void fault_handler(void) {
    board_exit(FAULT_STATUS);
}

void reset_handler(void) {
#ifdef __ARM_FP
    COPROCESSOR_ACCESS |= 0xfu << 20; /* before any floating-point instruction */
    __asm volatile("dsb\n isb" ::: "memory");
#endif
    const uint32_t *from = &_data_load;
    for (uint32_t *to = &_data_start; to < &_data_end; to++, from++) {
        *to = *from;
    }
    for (uint32_t *to = &_bss_start; to < &_bss_end; to++) {
        *to = 0u;
    }
    board_exit(main());
}

typedef union {
    void *stack;
    void (*handler)(void);
} vector;

/* Initial stack pointer, reset, and the five fault exceptions of the architecture. */
__attribute__((section(".vectors"), used)) static const vector vectors[7] = {
    {.stack = &_stack_top},       {.handler = reset_handler}, {.handler = fault_handler},
    {.handler = fault_handler},   {.handler = fault_handler}, {.handler = fault_handler},
    {.handler = fault_handler},
};
