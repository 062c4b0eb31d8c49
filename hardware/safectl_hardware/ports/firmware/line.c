#include "line.h"

#include "port.h"
#include "uart.h"

#define HALF 0x8000u
#define HOST_LIMITS_PAYLOAD 14u
#define MICROSECONDS 1000000u

void line_init(line *self, const line_identity *identity, uint8_t buffer[], size_t capacity) {
    self->identity = *identity;
    sf_frame_decoder_init(&self->decoder, buffer, capacity);
    sf_watchdog_init(&self->watchdog, identity->period_us / 8u * 15u);
    self->is_connected = 0;
    self->may_arm = 0;
    self->session = 0u;
    self->last_sequence = 0u;
    self->reply_size = 0u;
}

uint32_t line_now(void) {
    static uint32_t last, now_us;
    static uint64_t rest; /* counter ticks times a million, below one microsecond */
    const uint32_t counter = port_counter();
    rest += (uint64_t)port_ticks(last, counter) * MICROSECONDS;
    last = counter;
    now_us += (uint32_t)(rest / SF_COUNTER_HZ);
    rest %= SF_COUNTER_HZ;
    return now_us;
}

size_t line_send(const sf_frame *frame, uint8_t body[], uint8_t wire[]) {
    const size_t size = sf_frame_encode(frame, body, wire);
    line_resend(wire, size);
    return size;
}

void line_resend(const uint8_t wire[], size_t size) {
    for (size_t i = 0; i < size; i++) {
        uart_write(wire[i]);
    }
}

static int is_same(const line_identity *own, const uint8_t payload[]) {
    return sf_get_u16(payload) == PROTOCOL_VERSION && sf_get_u32(payload + 2) == own->spec_digest &&
           sf_get_u32(payload + 6) == own->limits_crc;
}

static void send_identity(const line *self, uint16_t sequence, uint8_t body[], uint8_t wire[]) {
    const line_identity *const own = &self->identity;
    uint8_t *const to = body + SF_FRAME_HEADER;
    sf_put_u16(to, PROTOCOL_VERSION);
    to[2] = own->role;
    to[3] = (uint8_t)self->is_connected;
    sf_put_u32(to + 4, own->spec_digest);
    sf_put_u32(to + 8, own->program_digest);
    sf_put_u32(to + 12, own->limits_crc);
    sf_put_u32(to + 16, own->period_us);
    sf_put_u16(to + 20, own->observations);
    sf_put_u16(to + 22, own->actions);
    sf_put_u16(to + 24, own->failures);
    sf_put_u16(to + 26, 0u);
    const sf_frame answer = {SF_FRAME_LIMITS, sequence, line_now(), 0, LINE_LIMITS_PAYLOAD};
    (void)line_send(&answer, body, wire);
}

int line_handshake(line *self, const sf_frame *frame, uint8_t body[], uint8_t wire[]) {
    if (frame->size != HOST_LIMITS_PAYLOAD) {
        return 0; /* an echo of our own, or another protocol: not worth an answer */
    }
    const uint32_t session = sf_get_u32(frame->payload + 10);
    const int is_new = !self->is_connected || session != self->session;
    if (is_new) {
        self->is_connected = self->identity.failures == 0u &&
                             is_same(&self->identity, frame->payload);
        self->may_arm = self->is_connected;
        self->session = session;
        self->last_sequence = frame->sequence;
        sf_watchdog_stop(&self->watchdog);
    }
    send_identity(self, frame->sequence, body, wire);
    return is_new;
}

line_order line_take(line *self, uint16_t sequence) {
    const uint16_t newer_by = (uint16_t)(sequence - self->last_sequence);
    if (newer_by == 0u) {
        return LINE_REPEATED;
    }
    return newer_by < HALF ? LINE_NEW : LINE_OLD;
}

uint8_t line_arm(line *self, uint32_t now) {
    if (self->identity.failures != 0u) {
        return FAULT_SELFTEST;
    }
    if (!self->is_connected) {
        return FAULT_NOT_CONNECTED;
    }
    if (!self->may_arm && !sf_watchdog_check(&self->watchdog, now)) {
        return self->watchdog.mode == SF_TRIPPED ? FAULT_SILENCE : FAULT_STOPPED;
    }
    self->may_arm = 0;
    (void)sf_watchdog_observe(&self->watchdog, now, now);
    return sf_watchdog_arm(&self->watchdog, now) ? 0u : FAULT_STOPPED;
}
