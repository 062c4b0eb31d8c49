/* Status codes, certificate and checks shared by every generated controller. */
#ifndef SF_CORE_H
#define SF_CORE_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* What became of a proposed action. */
typedef enum { SF_KEPT = 0, SF_CORRECTED = 1, SF_FALLBACK = 2 } sf_status;

/* Evidence for one action. The margin is the constraint value at the returned action, in the unit of
 * the constraint; below zero means violated. */
typedef struct {
    sf_status status;
    float margin;
} sf_certificate;

#define SF_MARGIN_NONE 3.40282347e+38f       /* the program has no constraint */
#define SF_MARGIN_UNKNOWN (-3.40282347e+38f) /* nothing is known about the fail-safe action */

/* 1 if no entry is NaN or infinite. Tests exponent bits, so -ffast-math cannot remove it. */
int sf_all_finite(const float values[], size_t size);

/* 1 if both arrays hold the same bits. */
int sf_same_bits(const float left[], const float right[], size_t size);

/* Reinterprets 32-bit words as floats. */
void sf_words(float to[], const uint32_t words[], size_t size);

void sf_copy(float to[], const float from[], size_t size);

/* CRC-32 (IEEE 802.3, as in zlib) of a memory block. */
uint32_t sf_crc32(const void *data, size_t bytes);

#ifdef __cplusplus
}
#endif

#endif
