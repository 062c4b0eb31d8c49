/* What a session needs from an ATmega328P: timer 1 at one sixty-fourth of the clock, and its serial
 * line, which simavr prints. */
#ifndef PORT_H
#define PORT_H

#include <avr/io.h>
#include <stdint.h>

static inline void port_start_counter(void) {
    TCCR1A = 0u;
    TCCR1B = (1u << CS11) | (1u << CS10);
}

static inline uint32_t port_counter(void) {
    return TCNT1;
}

static inline uint32_t port_ticks(uint32_t before, uint32_t after) {
    return (after - before) & 0xffffu;
}

static inline uint32_t *port_stack_pointer(void) {
    return (uint32_t *)SP;
}

#endif
