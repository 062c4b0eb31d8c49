/* Start-up for a 32-bit RISC-V core: pointers, the FPU if there is one, memory, main, exit. */
#include <stdint.h>

#include "board.h"

extern uint32_t _data_load, _data_start, _data_end, _bss_start, _bss_end;

int main(void);
void start(void);
void reset_handler(void);
void fault_handler(void);

#define FAULT_STATUS 70

__attribute__((aligned(4))) void fault_handler(void) {
    board_exit(FAULT_STATUS);
}

__attribute__((section(".reset"), naked, used)) void reset_handler(void) {
    __asm volatile(".option push\n"
                   ".option norelax\n"
                   ".option arch, +zicsr\n"
                   "la gp, __global_pointer$\n"
                   "la sp, _stack_top\n"
                   "la t0, fault_handler\n"
                   "csrw mtvec, t0\n"
#ifdef __riscv_flen
                   "li t0, 0x2000\n" /* floating-point state: initial */
                   "csrs mstatus, t0\n"
                   "csrw fcsr, zero\n"
#endif
                   ".option pop\n"
                   "j start\n");
}

void start(void) {
    const uint32_t *from = &_data_load;
    for (uint32_t *to = &_data_start; to < &_data_end; to++, from++) {
        *to = *from;
    }
    for (uint32_t *to = &_bss_start; to < &_bss_end; to++) {
        *to = 0u;
    }
    board_exit(main());
}
