#include "sf_integer.h"

#include "sf_math.h"

#if defined(__ARM_FEATURE_DSP) && defined(__ARM_FEATURE_SIMD32)
#include <arm_acle.h>
#define SF_PAIRS

static inline uint32_t word_at(const void *at) {
    uint32_t word;
    (void)memcpy(&word, at, sizeof word);
    return word;
}

/* Bytes 0 and 2 of a word as two 16-bit numbers, then bytes 1 and 3: no intrinsic rotates. */
static inline int16x2_t even_bytes(uint32_t word) {
    return __sxtb16((int8x4_t)word);
}

static inline int16x2_t odd_bytes(uint32_t word) {
    int16x2_t pair;
    __asm__("sxtb16 %0, %1, ror #8" : "=r"(pair) : "r"(word));
    return pair;
}
#endif

void sf_rescale(float *y, const int32_t *sums, const float *scale, size_t size) {
    for (size_t i = 0; i < size; i++) {
        y[i] = (float)sums[i] * scale[i];
    }
}

void sf_lookup_s8(int8_t *y, const int8_t *x, const int8_t *table, size_t size) {
    for (size_t i = 0; i < size; i++) {
        y[i] = table[(int32_t)x[i] + 128];
    }
}

static int32_t clamp(int32_t value, int32_t low, int32_t high) {
    return value < low ? low : (value > high ? high : value);
}

/* Adding 1.5 * 2^23, and the zero, rounds; the bits of the result grow with it, so that they can be
 * compared as integers. */
#define MAGIC 0x4B400000

static inline int32_t magic_word(float x, float inverse, float offset) {
    const uint32_t bits = sf_bits(x * inverse + offset);
    int32_t word;
    (void)memcpy(&word, &bits, sizeof word);
    return word;
}

/* The high word of the product, then a shift with rounding: all quotients round down, so that the
 * whole rounds once. `shift` is one less than the number of bits. */
static inline int32_t scaled(int32_t sum, int32_t multiplier, int32_t shift, int32_t zero) {
    const int32_t high = (int32_t)(((int64_t)sum * multiplier) >> 32);
    return zero + (((high >> shift) + 1) >> 1);
}

/* What remains below the shift decides, a half by the sign: the bits of a word rounded down. */
static inline int32_t scaled_twice(int32_t sum, int32_t multiplier, int32_t shift) {
    const int32_t high = (int32_t)(((int64_t)sum * multiplier + ((int64_t)1 << 30)) >> 31);
    const int32_t mask = (int32_t)(((uint32_t)1 << shift) - 1u);
    const int32_t half = (mask >> 1) + ((high < 0) ? 1 : 0);
    return (high >> shift) + (((high & mask) > half) ? 1 : 0);
}

/* Saturation to so many bits; and the integer in a magic word, saturated. */
#ifdef SF_PAIRS
#define SF_SATURATION(bits)                                                       \
    static inline int32_t saturated_##bits(int32_t value) {                       \
        int32_t result;                                                           \
        __asm__("ssat %0, #" #bits ", %1" : "=r"(result) : "r"(value));           \
        return result;                                                            \
    }                                                                             \
    static inline int32_t limited_##bits(int32_t word) {                          \
        return saturated_##bits(__qsub(word, MAGIC));                             \
    }
#else
#define SF_SATURATION(bits)                                                       \
    static inline int32_t saturated_##bits(int32_t value) {                       \
        return clamp(value, -(1 << ((bits) - 1)), (1 << ((bits) - 1)) - 1);           \
    }                                                                             \
    static inline int32_t limited_##bits(int32_t word) {                          \
        const int32_t half = (int32_t)1 << ((bits) - 1);                            \
        return clamp(word, MAGIC - half, MAGIC + half - 1) - MAGIC;               \
    }
#endif

SF_SATURATION(8)
SF_SATURATION(16)

#define SF_NUMBER int8_t
#define SF_NAME(name) name##_s8
#define SF_BITS 8
#define SF_FROM_WORD limited_8
#define SF_SATURATED saturated_8
#define SF_SECOND 1 /* where the weights of inputs 1 and 2 lie in a word */
#define SF_THIRD 2
#include "sf_integer_body.h"
#undef SF_NUMBER
#undef SF_NAME
#undef SF_BITS
#undef SF_FROM_WORD
#undef SF_SATURATED
#undef SF_SECOND
#undef SF_THIRD

#define SF_NUMBER int16_t
#define SF_NAME(name) name##_s16
#define SF_BITS 16
#define SF_FROM_WORD limited_16
#define SF_SATURATED saturated_16
#define SF_SECOND 2
#define SF_THIRD 1
#include "sf_integer_body.h"
