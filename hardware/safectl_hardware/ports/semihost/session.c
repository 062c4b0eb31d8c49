/* Serves one controller: reads observations from the pipe "observations", writes to "replies".
 *
 * First reply: magic, failures of the self-test, ticks of an empty measurement, bytes of the state.
 * Then per observation of SF_NX floats: SF_NU floats, margin, status, ticks, bytes of stack. */
#include "measure.h"
#include "semihost.h"

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
