/* The board's side of the serial protocol, shared by both roles: frames, handshake, watchdog. */
#ifndef LINE_H
#define LINE_H

#include "sf_frame.h"
#include "sf_watchdog.h"

#define PROTOCOL_VERSION 1u

enum { ROLE_CONTROLLER = 1, ROLE_ROBOT = 2 };

/* Why a board stopped or refuses. */
enum {
    FAULT_NOT_CONNECTED = 1, /* no handshake yet */
    FAULT_SILENCE = 2,       /* the watchdog tripped */
    FAULT_MISMATCH = 3,      /* the host has another protocol, specification or limits */
    FAULT_SELFTEST = 4,      /* the golden vectors failed at boot */
    FAULT_MALFORMED = 5,     /* a payload of the wrong size */
    FAULT_STOPPED = 6        /* stopped by the host, or not armed since */
};

/* What a board is, for the handshake. */
typedef struct {
    uint8_t role;
    uint32_t spec_digest;
    uint32_t program_digest;
    uint32_t limits_crc;
    uint32_t period_us;
    uint16_t observations;
    uint16_t actions;
    uint16_t failures; /* of the self-test */
} line_identity;

typedef struct {
    line_identity identity;
    sf_watchdog watchdog;
    sf_frame_decoder decoder;
    int is_connected;
    int may_arm;            /* no message was taken since the handshake */
    uint32_t session;       /* of the last handshake */
    uint16_t last_sequence; /* of the last message or handshake */
    size_t reply_size;      /* of the answer to that message, kept for a repetition */
} line;

/* Room for a payload of the larger of n and what the handshake needs. */
#define LINE_LIMITS_PAYLOAD 28u
#define LINE_PAYLOAD(n) ((n) > LINE_LIMITS_PAYLOAD ? (n) : LINE_LIMITS_PAYLOAD)

/* Starts stopped and not connected. The watchdog trips before two periods of silence. */
void line_init(line *self, const line_identity *identity, uint8_t buffer[], size_t capacity);

/* Microseconds since the start, modulo 2^32. Call it more often than the counter wraps. */
uint32_t line_now(void);

/* Sends a frame whose payload lies SF_FRAME_HEADER bytes into `body`. */
size_t line_send(const sf_frame *frame, uint8_t body[], uint8_t wire[]);

/* Sends the bytes of a frame that was sent before. */
void line_resend(const uint8_t wire[], size_t size);

/* Answers a handshake: connects if everything is equal. The next message arms the watchdog. Returns
 * 1 if it starts a session; a repeated one is answered and changes nothing. */
int line_handshake(line *self, const sf_frame *frame, uint8_t body[], uint8_t wire[]);

/* What is to be done with a numbered message. */
typedef enum { LINE_NEW, LINE_REPEATED, LINE_OLD } line_order;

line_order line_take(line *self, uint16_t sequence);

/* Takes note of a new valid message. Returns 0 if the board runs, or the fault. */
uint8_t line_arm(line *self, uint32_t now);

#endif
