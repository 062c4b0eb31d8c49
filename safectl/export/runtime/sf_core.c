#include "sf_core.h"

#include <string.h>

static uint32_t bits_of(float value) {
    uint32_t bits;
    (void)memcpy(&bits, &value, sizeof bits);
    return bits;
}

/* Bit 31 is set if the exponent is all ones. */
static inline uint32_t flipped_by(float value) {
    const uint32_t bits = bits_of(value);
    return (bits + 0x00800000u) ^ bits;
}

int sf_all_finite(const float values[], size_t size) {
    uint32_t flipped = 0u;
    size_t i = 0;
#ifndef __OPTIMIZE_SIZE__
    for (; i + 4u <= size; i += 4u) {
        flipped |= flipped_by(values[i]) | flipped_by(values[i + 1u]);
        flipped |= flipped_by(values[i + 2u]) | flipped_by(values[i + 3u]);
    }
#endif
    for (; i < size; i++) {
        flipped |= flipped_by(values[i]);
    }
    return (flipped >> 31) == 0u;
}

int sf_same_bits(const float left[], const float right[], size_t size) {
    int same = 1;
    for (size_t i = 0; i < size; i++) {
        same &= bits_of(left[i]) == bits_of(right[i]);
    }
    return same;
}

void sf_words(float to[], const uint32_t words[], size_t size) {
    for (size_t i = 0; i < size; i++) {
        (void)memcpy(&to[i], &words[i], sizeof to[i]);
    }
}

void sf_copy(float to[], const float from[], size_t size) {
    for (size_t i = 0; i < size; i++) {
        to[i] = from[i];
    }
}

uint32_t sf_crc32(const void *data, size_t bytes) {
    const unsigned char *byte = data;
    uint32_t crc = 0xffffffffu;
    for (size_t i = 0; i < bytes; i++) {
        crc ^= byte[i];
        for (int bit = 0; bit < 8; bit++) {
            crc = (crc >> 1) ^ ((crc & 1u) ? 0xedb88320u : 0u);
        }
    }
    return ~crc;
}
