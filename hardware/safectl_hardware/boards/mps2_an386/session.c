/* Serves one controller: reads observations from the pipe "observations", writes to "replies".
 *
 * SF_HEADER, SF_STATE, SF_INIT, SF_STEP, SF_SELFTEST, SF_NX and SF_NU name the controller.
 * First reply: magic, failures of the self-test, ticks of an empty measurement, bytes of the state.
 * Then per observation of SF_NX floats: SF_NU floats, margin, status, ticks, bytes of stack. */
#include <stdint.h>

#include SF_HEADER
#include "semihost.h"

#define MAGIC 0x5afec0deu
#define SYSTICK_CONTROL (*(volatile uint32_t *)0xe000e010u)
#define SYSTICK_RELOAD (*(volatile uint32_t *)0xe000e014u)
#define SYSTICK_VALUE (*(volatile uint32_t *)0xe000e018u)
#define SYSTICK_MASK 0xffffffu
#define PAINT 0xa5a5a5a5u
#define PAINTED_WORDS 1024u

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

static uint32_t *stack_pointer(void) {
    uint32_t *pointer;
    __asm volatile("mov %0, sp" : "=r"(pointer));
    return pointer;
}

static __attribute__((noinline)) void measure(int is_empty, sf_certificate *certificate) {
    volatile uint32_t *const below = stack_pointer() - PAINTED_WORDS;
    for (uint32_t i = 0; i < PAINTED_WORDS; i++) {
        below[i] = PAINT;
    }
    const uint32_t before = SYSTICK_VALUE;
    BARRIER();
    if (!is_empty) {
        (void)SF_STEP(&state, observation, reply.action, certificate);
    }
    BARRIER();
    const uint32_t after = SYSTICK_VALUE;
    uint32_t untouched = 0;
    while (untouched < PAINTED_WORDS && below[untouched] == PAINT) {
        untouched++;
    }
    reply.ticks = (before - after) & SYSTICK_MASK;
    reply.stack = (PAINTED_WORDS - untouched) * 4u;
}

int main(void) {
    const int source = semihost_open_read("observations", 12);
    const int target = semihost_open_write("replies", 7);
    sf_certificate certificate = {.status = SF_FALLBACK, .margin = 0.0f};
    if (source < 0 || target < 0) {
        return 71;
    }
    SYSTICK_RELOAD = SYSTICK_MASK;
    SYSTICK_VALUE = 0u;
    SYSTICK_CONTROL = 5u; /* processor clock, enabled, no interrupt */
    while (SYSTICK_VALUE == 0u) {
    }
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
