/* A controller on a serial line: a state frame comes in, a command frame goes out.
 *
 * A repeated state is answered with the same bytes and not computed again, so that the host may
 * ask again when an answer is lost. On silence the board says so with its fail-safe action and stays
 * stopped until the next handshake. SF_HEADER, SF_STATE, ... name the controller, as in a session;
 * SF_SPEC_DIGEST, SF_PROGRAM_DIGEST, SF_LIMITS_CRC and SF_PERIOD_US say what it is. */
#include <string.h>

#include SF_HEADER
#include "board.h"
#include "line.h"
#include "port.h"
#include "uart.h"

#define OBSERVATION_BYTES (4u * SF_NX)
#define ACTION_BYTES (4u * SF_NU)
#define COMMAND_PAYLOAD (ACTION_BYTES + 5u)
#define FAULT_PAYLOAD (5u + ACTION_BYTES)
#define OUT_PAYLOAD LINE_PAYLOAD(COMMAND_PAYLOAD)
#define IN_PAYLOAD LINE_PAYLOAD(OBSERVATION_BYTES)
#define NAN_BITS 0x7fc00000u
#define NO_CLOCK 73

static SF_STATE state;
static line host;
static float fail_safe[SF_NU];
static uint8_t received[SF_FRAME_WIRE(IN_PAYLOAD)];
static uint8_t body[SF_FRAME_BODY(OUT_PAYLOAD)];
static uint8_t wire[SF_FRAME_WIRE(OUT_PAYLOAD)];
static uint8_t reply[SF_FRAME_WIRE(OUT_PAYLOAD)]; /* of the last state, for a repetition */

static void put_floats(uint8_t to[], const float from[], size_t size) {
    memcpy(to, from, 4u * size); /* the cores we know are little-endian */
}

static size_t send_fault(uint8_t code, uint16_t sequence, uint32_t age_us, uint8_t to[]) {
    uint8_t *const payload = body + SF_FRAME_HEADER;
    payload[0] = code;
    sf_put_u32(payload + 1, age_us);
    put_floats(payload + 5, fail_safe, SF_NU);
    const sf_frame frame = {SF_FRAME_FAULT, sequence, line_now(), 0, FAULT_PAYLOAD};
    return line_send(&frame, body, to);
}

static size_t send_command(const sf_frame *request) {
    float observation[SF_NX];
    float action[SF_NU];
    sf_certificate certificate;
    memcpy(observation, request->payload, OBSERVATION_BYTES);
    (void)SF_STEP(&state, observation, action, &certificate);
    uint8_t *const payload = body + SF_FRAME_HEADER;
    put_floats(payload, action, SF_NU);
    put_floats(payload + ACTION_BYTES, &certificate.margin, 1u);
    payload[ACTION_BYTES + 4u] = (uint8_t)certificate.status;
    const sf_frame frame = {SF_FRAME_COMMAND, request->sequence, line_now(), 0, COMMAND_PAYLOAD};
    return line_send(&frame, body, reply);
}

static void answer_state(const sf_frame *request) {
    const line_order order = host.is_connected ? line_take(&host, request->sequence) : LINE_NEW;
    if (request->size != OBSERVATION_BYTES) {
        (void)send_fault(FAULT_MALFORMED, request->sequence, 0u, wire);
        return;
    }
    if (order == LINE_REPEATED) {
        line_resend(reply, host.reply_size);
        return;
    }
    if (order == LINE_OLD) {
        return;
    }
    const uint8_t fault = line_arm(&host, line_now());
    host.reply_size = fault == 0u ? send_command(request)
                                  : send_fault(fault, request->sequence, 0u, reply);
    host.last_sequence = request->sequence;
}

static void answer(const sf_frame *frame) {
    switch (frame->type) {
    case SF_FRAME_LIMITS:
        if (line_handshake(&host, frame, body, wire)) {
            SF_INIT(&state);
            host.reply_size = 0u;
        }
        break;
    case SF_FRAME_STATE:
        answer_state(frame);
        break;
    case SF_FRAME_STOP: {
        sf_watchdog_stop(&host.watchdog);
        host.may_arm = 0;
        const sf_frame ack = {SF_FRAME_ACK, frame->sequence, line_now(), 0, 0u};
        (void)line_send(&ack, body, wire);
        break;
    }
    default: /* what only a robot understands */
        break;
    }
}

static void check_silence(void) {
    const uint32_t now = line_now();
    const int was_running = host.watchdog.mode == SF_RUNNING;
    if (!sf_watchdog_check(&host.watchdog, now) && was_running) {
        (void)send_fault(FAULT_SILENCE, host.last_sequence, now - host.watchdog.stamp, wire);
    }
}

int main(void) {
    if (uart_init() != 0) {
        return NO_CLOCK;
    }
    port_start_counter();
    const line_identity identity = {
        .role = ROLE_CONTROLLER,
        .spec_digest = SF_SPEC_DIGEST,
        .program_digest = SF_PROGRAM_DIGEST,
        .limits_crc = SF_LIMITS_CRC,
        .period_us = SF_PERIOD_US,
        .observations = SF_NX,
        .actions = SF_NU,
        .failures = (uint16_t)SF_SELFTEST(&state),
    };
    static const uint32_t nan_bits = NAN_BITS;
    float nothing[SF_NX];
    sf_certificate certificate;
    for (size_t i = 0; i < SF_NX; i++) {
        sf_words(&nothing[i], &nan_bits, 1u);
    }
    (void)SF_STEP(&state, nothing, fail_safe, &certificate);
    SF_INIT(&state);
    line_init(&host, &identity, received, sizeof received);
    for (;;) {
        const int byte = uart_read();
        sf_frame frame;
        if (byte >= 0 && sf_frame_push(&host.decoder, (uint8_t)byte, &frame)) {
            answer(&frame);
        }
        check_silence();
    }
}

void board_exit(int status) {
    (void)status;
    for (;;) { /* stopped: nothing is answered any more */
    }
}
