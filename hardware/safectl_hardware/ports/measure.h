/* One step of a controller, measured: ticks of the port's counter and bytes of stack.
 *
 * SF_HEADER, SF_STATE, SF_INIT, SF_STEP, SF_SELFTEST, SF_NX and SF_NU name the controller;
 * SF_PAINTED_WORDS is how much stack is painted below a step. */
#ifndef MEASURE_H
#define MEASURE_H

#include <stdint.h>

#include SF_HEADER
#include "port.h"

#define MAGIC 0x5afec0deu
#define PAINT 0xa5a5a5a5u
#define PAINTED_WORDS ((uint32_t)(SF_PAINTED_WORDS))

static SF_STATE state;
static float observation[SF_NX];

static struct {
    float action[SF_NU];
    float margin;
    int32_t status;
    uint32_t ticks;
    uint32_t stack;
} reply;

/* Keeps the compiler from moving work across a reading of the counter. */
#define BARRIER() __asm volatile("" ::: "memory")

static __attribute__((noinline)) void measure(int is_empty, sf_certificate *certificate) {
    volatile uint32_t *const below = port_stack_pointer() - PAINTED_WORDS;
    for (uint32_t i = 0; i < PAINTED_WORDS; i++) {
        below[i] = PAINT;
    }
    const uint32_t before = port_counter();
    BARRIER();
    if (!is_empty) {
        (void)SF_STEP(&state, observation, reply.action, certificate);
    }
    BARRIER();
    const uint32_t after = port_counter();
    uint32_t untouched = 0;
    while (untouched < PAINTED_WORDS && below[untouched] == PAINT) {
        untouched++;
    }
    reply.ticks = port_ticks(before, after);
    reply.stack = (PAINTED_WORDS - untouched) * 4u;
}

#endif
