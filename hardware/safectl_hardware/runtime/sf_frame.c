/* COBS: S. Cheshire and M. Baker, "Consistent Overhead Byte Stuffing", IEEE/ACM Transactions on
 * Networking 7(2), 1999. A full last block is not followed by an empty one. */
#include "sf_frame.h"

#include "sf_core.h"

#define BLOCK 0xffu

void sf_put_u16(uint8_t to[], uint16_t value) {
    to[0] = (uint8_t)(value & 0xffu);
    to[1] = (uint8_t)(value >> 8);
}

void sf_put_u32(uint8_t to[], uint32_t value) {
    for (size_t i = 0; i < 4u; i++) {
        to[i] = (uint8_t)((value >> (8u * i)) & 0xffu);
    }
}

uint16_t sf_get_u16(const uint8_t from[]) {
    return (uint16_t)(from[0] | ((uint32_t)from[1] << 8));
}

uint32_t sf_get_u32(const uint8_t from[]) {
    uint32_t value = 0u;
    for (size_t i = 0; i < 4u; i++) {
        value |= (uint32_t)from[i] << (8u * i);
    }
    return value;
}

static size_t stuff(const uint8_t data[], size_t size, uint8_t out[]) {
    size_t code_at = 0u;
    size_t written = 1u;
    uint8_t code = 1u;
    for (size_t i = 0; i < size; i++) {
        if (data[i] != 0u) {
            out[written++] = data[i];
            code++;
        }
        if (data[i] == 0u || (code == BLOCK && i + 1u < size)) {
            out[code_at] = code;
            code_at = written++;
            code = 1u;
        }
    }
    out[code_at] = code;
    return written;
}

/* Undoes the stuffing in place. Returns the size, or 0 if a block runs past the end. */
static size_t unstuff(uint8_t data[], size_t size) {
    size_t read = 0u;
    size_t written = 0u;
    while (read < size) {
        const size_t code = data[read++];
        if (code == 0u || read + code - 1u > size) {
            return 0u;
        }
        for (size_t i = 1; i < code; i++) {
            data[written++] = data[read++];
        }
        if (code != BLOCK && read < size) {
            data[written++] = 0u;
        }
    }
    return written;
}

size_t sf_frame_encode(const sf_frame *frame, uint8_t body[], uint8_t wire[]) {
    const size_t checked = SF_FRAME_HEADER + frame->size;
    body[0] = frame->type;
    sf_put_u16(body + 1, frame->sequence);
    sf_put_u32(body + 3, frame->time_us);
    sf_put_u32(body + checked, sf_crc32(body, checked));
    const size_t written = stuff(body, checked + SF_FRAME_CRC, wire);
    wire[written] = 0u;
    return written + 1u;
}

void sf_frame_decoder_init(sf_frame_decoder *decoder, uint8_t buffer[], size_t capacity) {
    decoder->buffer = buffer;
    decoder->capacity = capacity;
    decoder->size = 0u;
    decoder->refused = 0u;
}

int sf_frame_push(sf_frame_decoder *decoder, uint8_t byte, sf_frame *frame) {
    if (byte != 0u) {
        if (decoder->size < decoder->capacity) {
            decoder->buffer[decoder->size] = byte;
        }
        decoder->size += decoder->size <= decoder->capacity; /* one past: too long */
        return 0;
    }
    const size_t received = decoder->size;
    decoder->size = 0u;
    if (received == 0u) {
        return 0;
    }
    const size_t size = received > decoder->capacity ? 0u : unstuff(decoder->buffer, received);
    if (size < SF_FRAME_BODY(0u) || sf_get_u32(decoder->buffer + size - SF_FRAME_CRC) !=
                                        sf_crc32(decoder->buffer, size - SF_FRAME_CRC)) {
        decoder->refused++;
        return 0;
    }
    frame->type = decoder->buffer[0];
    frame->sequence = sf_get_u16(decoder->buffer + 1);
    frame->time_us = sf_get_u32(decoder->buffer + 3);
    frame->payload = decoder->buffer + SF_FRAME_HEADER;
    frame->size = size - SF_FRAME_BODY(0u);
    return 1;
}
