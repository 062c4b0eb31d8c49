/* Serves one controller: reads observations from the pipe "observations", writes to "replies".
 *
 * SF_HEADER, SF_STATE, SF_INIT, SF_STEP, SF_SELFTEST, SF_NX and SF_NU name the controller;
 * SF_PAINTED_WORDS is how much stack is painted below a step.
 * First reply: magic, failures of the self-test, ticks of an empty measurement, bytes of the state.
 * Then per observation of SF_NX floats: SF_NU floats, margin, status, ticks, bytes of stack. */
#include <stdint.h>

#include SF_HEADER
#include "port.h"
#include "semihost.h"

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

int main(void) {
    const int source = semihost_open_read("observations", 12);
    const int target = semihost_open_write("replies", 7);
    sf_certificate certificate = {.status = SF_FALLBACK, .margin = 0.0f};
    if (source < 0 || target < 0) {
        return 71;
    }
    port_start_counter();
    const uint32_t failures = (uint32_t)SF_SELFTEST(&state);
    SF_INIT(&state);
    measure(1, &certificate);
    const uint32_t hello[4] = {MAGIC, failures, reply.ticks, sizeof state};
    if (semihost_write(target, hello, sizeof hello) != 0) {
        return 72;
    }
    while (semihost_read(source, observation, sizeof observation) == 0) {
        measure(0, &certificate);
        reply.margin = certificate.margin;
        reply.status = (int32_t)certificate.status;
        if (semihost_write(target, &reply, sizeof reply) != 0) {
            return 72;
        }
    }
    return 0;
}
