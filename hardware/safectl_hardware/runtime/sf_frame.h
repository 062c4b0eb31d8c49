/* Frames on a serial line: COBS(type u8 | sequence u16 | time_us u32 | payload | crc32 u32) and a
 * zero byte, all little-endian. A byte lost or flipped costs one frame, never a wrong one: the CRC
 * covers all before it, and the zero byte starts anew. */
#ifndef SF_FRAME_H
#define SF_FRAME_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define SF_FRAME_HEADER 7u
#define SF_FRAME_CRC 4u

/* Bytes before the stuffing, and at most after it with the zero byte. */
#define SF_FRAME_BODY(payload) (SF_FRAME_HEADER + (payload) + SF_FRAME_CRC)
#define SF_FRAME_WIRE(payload) (SF_FRAME_BODY(payload) + SF_FRAME_BODY(payload) / 254u + 2u)

enum {
    SF_FRAME_COMMAND = 1,
    SF_FRAME_STATE = 2,
    SF_FRAME_HEARTBEAT = 3,
    SF_FRAME_LIMITS = 4,
    SF_FRAME_FAULT = 5,
    SF_FRAME_ACK = 6,
    SF_FRAME_STOP = 7
};

typedef struct {
    uint8_t type;
    uint16_t sequence;
    uint32_t time_us;
    const uint8_t *payload;
    size_t size; /* of the payload */
} sf_frame;

/* Writes a frame and its zero byte to `wire`, which holds SF_FRAME_WIRE(size) bytes; returns how
 * many were written. The payload must lie SF_FRAME_HEADER bytes into `body`, which holds
 * SF_FRAME_BODY(size) bytes. */
size_t sf_frame_encode(const sf_frame *frame, uint8_t body[], uint8_t wire[]);

/* Collects the bytes of one frame at a time. */
typedef struct {
    uint8_t *buffer; /* SF_FRAME_WIRE of the largest payload */
    size_t capacity;
    size_t size;
    uint32_t refused; /* frames too long, badly stuffed or with a wrong CRC */
} sf_frame_decoder;

void sf_frame_decoder_init(sf_frame_decoder *decoder, uint8_t buffer[], size_t capacity);

/* Takes one byte. Returns 1 if it completes a valid frame, which then lies in the buffer until the
 * next call. */
int sf_frame_push(sf_frame_decoder *decoder, uint8_t byte, sf_frame *frame);

/* Numbers of fixed size, at any address. */
void sf_put_u16(uint8_t to[], uint16_t value);
void sf_put_u32(uint8_t to[], uint32_t value);
uint16_t sf_get_u16(const uint8_t from[]);
uint32_t sf_get_u32(const uint8_t from[]);

#ifdef __cplusplus
}
#endif

#endif
