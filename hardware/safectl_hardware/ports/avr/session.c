/* Runs one controller on the observations stored in flash and prints the replies as hex words.
 *
 * First line: magic, failures of the self-test, ticks of an empty measurement, bytes of the state.
 * Then a line per observation: actions, margin, status, ticks, bytes of stack. At the end the
 * processor sleeps without interrupts, which ends the emulator. */
#include <avr/interrupt.h>
#include <avr/pgmspace.h>
#include <avr/sleep.h>
#include <string.h>

#include "measure.h"
#include "rows.h"

static void put(char letter) {
    while ((UCSR0A & (1u << UDRE0)) == 0u) {
    }
    UDR0 = (uint8_t)letter;
}

static void put_word(uint32_t word) {
    for (int8_t shift = 28; shift >= 0; shift = (int8_t)(shift - 4)) {
        put("0123456789abcdef"[(word >> shift) & 0xfu]);
    }
}

int main(void) {
    sf_certificate certificate = {.status = SF_FALLBACK, .margin = 0.0f};
    UCSR0B = 1u << TXEN0;
    port_start_counter();
    const uint32_t failures = (uint32_t)SF_SELFTEST(&state);
    SF_INIT(&state);
    measure(1, &certificate);
    put_word(MAGIC);
    put_word(failures);
    put_word(reply.ticks);
    put_word(sizeof state);
    put('\n');
    for (uint16_t row = 0; row < ROWS; row++) {
        for (uint8_t i = 0; i < SF_NX; i++) {
            const uint32_t word = pgm_read_dword(&rows[row][i]);
            memcpy(&observation[i], &word, sizeof word);
        }
        measure(0, &certificate);
        for (uint8_t i = 0; i < SF_NU; i++) {
            uint32_t word;
            memcpy(&word, &reply.action[i], sizeof word);
            put_word(word);
        }
        uint32_t margin;
        memcpy(&margin, &certificate.margin, sizeof margin);
        put_word(margin);
        put_word((uint32_t)certificate.status);
        put_word(reply.ticks);
        put_word(reply.stack);
        put('\n');
    }
    cli();
    sleep_enable();
    sleep_cpu();
    return 0;
}
