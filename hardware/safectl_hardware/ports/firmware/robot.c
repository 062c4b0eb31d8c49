/* A robot on a serial line: command frames come in, a state frame goes out in every period.
 *
 * It starts stopped, runs with the first command after a handshake, and stops by itself before two
 * periods without a new command. The limits compiled in here hold whatever the host sends; a
 * command that is not finite, or of another size, stops the robot. Every state repeats the action that was applied. */
#include <string.h>

#include "board.h"
#include "line.h"
#include "plant.h"
#include "port.h"
#include "robot_limits.h"
#include "sf_core.h"
#include "uart.h"

#define ACTION_BYTES (4u * SF_NU)
#define STATE_PAYLOAD (4u * (SF_NX + SF_NU) + 1u)
#define FAULT_PAYLOAD (5u + ACTION_BYTES)
#define OUT_PAYLOAD LINE_PAYLOAD(STATE_PAYLOAD)
#define IN_PAYLOAD LINE_PAYLOAD(ACTION_BYTES)
#define NO_CLOCK 73

static line host;
static float command[SF_NU];
static float applied[SF_NU];
static uint16_t state_sequence;
static uint8_t received[SF_FRAME_WIRE(IN_PAYLOAD)];
static uint8_t body[SF_FRAME_BODY(OUT_PAYLOAD)];
static uint8_t wire[SF_FRAME_WIRE(OUT_PAYLOAD)];

static void send_fault(uint8_t code, uint16_t sequence, uint32_t age_us) {
    uint8_t *const payload = body + SF_FRAME_HEADER;
    plant_stop(applied);
    payload[0] = code;
    sf_put_u32(payload + 1, age_us);
    memcpy(payload + 5, applied, ACTION_BYTES);
    const sf_frame frame = {SF_FRAME_FAULT, sequence, line_now(), 0, FAULT_PAYLOAD};
    (void)line_send(&frame, body, wire);
}

static void send_state(uint32_t now) {
    uint8_t *const payload = body + SF_FRAME_HEADER;
    float observation[SF_NX];
    plant_observe(observation);
    memcpy(payload, observation, sizeof observation);
    memcpy(payload + sizeof observation, applied, ACTION_BYTES);
    payload[STATE_PAYLOAD - 1u] = (uint8_t)host.watchdog.mode;
    const sf_frame frame = {SF_FRAME_STATE, ++state_sequence, now, 0, STATE_PAYLOAD};
    (void)line_send(&frame, body, wire);
}

static void refuse(const sf_frame *frame) {
    sf_watchdog_stop(&host.watchdog);
    host.may_arm = 0;
    send_fault(FAULT_MALFORMED, frame->sequence, 0u);
}

static void take_command(const sf_frame *frame) {
    float action[SF_NU];
    if (frame->size != ACTION_BYTES) {
        refuse(frame);
        return;
    }
    if (host.is_connected && line_take(&host, frame->sequence) != LINE_NEW) {
        return;
    }
    memcpy(action, frame->payload, ACTION_BYTES);
    if (!sf_all_finite(action, SF_NU)) {
        refuse(frame);
        return;
    }
    const uint8_t fault = line_arm(&host, line_now());
    host.last_sequence = frame->sequence;
    if (fault != 0u) {
        send_fault(fault, frame->sequence, 0u);
        return;
    }
    for (size_t i = 0; i < SF_NU; i++) {
        const float low = action_low[i];
        const float high = action_high[i];
        command[i] = action[i] < low ? low : (action[i] > high ? high : action[i]);
    }
}

static void answer(const sf_frame *frame) {
    switch (frame->type) {
    case SF_FRAME_LIMITS:
        if (line_handshake(&host, frame, body, wire)) {
            plant_stop(applied);
        }
        break;
    case SF_FRAME_COMMAND:
        take_command(frame);
        break;
    case SF_FRAME_STOP: {
        sf_watchdog_stop(&host.watchdog);
        host.may_arm = 0;
        plant_stop(applied);
        const sf_frame ack = {SF_FRAME_ACK, frame->sequence, line_now(), 0, 0u};
        (void)line_send(&ack, body, wire);
        break;
    }
    default: /* what only a controller understands */
        break;
    }
}

static void check_silence(uint32_t now) {
    const int was_running = host.watchdog.mode == SF_RUNNING;
    if (!sf_watchdog_check(&host.watchdog, now) && was_running) {
        send_fault(FAULT_SILENCE, host.last_sequence, now - host.watchdog.stamp);
    }
}

static void tick(uint32_t now) {
    if (host.watchdog.mode == SF_RUNNING) {
        memcpy(applied, command, sizeof applied);
        plant_apply(applied);
    } else {
        plant_stop(applied);
    }
    if (host.is_connected) {
        send_state(now);
    }
}

int main(void) {
    if (uart_init() != 0) {
        return NO_CLOCK;
    }
    port_start_counter();
    const line_identity identity = {
        .role = ROLE_ROBOT,
        .spec_digest = SF_SPEC_DIGEST,
        .program_digest = 0u,
        .limits_crc = SF_LIMITS_CRC,
        .period_us = SF_PERIOD_US,
        .observations = SF_NX,
        .actions = SF_NU,
        .failures = 0u,
    };
    line_init(&host, &identity, received, sizeof received);
    plant_stop(applied);
    uint32_t due = line_now();
    for (;;) {
        const int byte = uart_read();
        sf_frame frame;
        if (byte >= 0 && sf_frame_push(&host.decoder, (uint8_t)byte, &frame)) {
            answer(&frame);
        }
        const uint32_t now = line_now();
        check_silence(now);
        if (now - due < 0x80000000u) {
            due += SF_PERIOD_US;
            tick(now);
        }
    }
}

void board_exit(int status) {
    (void)status;
    plant_stop(applied);
    for (;;) { /* stopped: nothing is answered any more */
    }
}
