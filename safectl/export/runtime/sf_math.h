/* Float32 functions with a fixed order of operations; their twins are in export/arithmetic.py.
 * Compile with -ffp-contract=off: a fused multiply-add rounds once where these round twice. */
#ifndef SF_MATH_H
#define SF_MATH_H

#include <stdint.h>
#include <string.h>

static inline uint32_t sf_bits(float value) {
    uint32_t bits;
    (void)memcpy(&bits, &value, sizeof bits);
    return bits;
}

static inline float sf_from_bits(uint32_t bits) {
    float value;
    (void)memcpy(&value, &bits, sizeof value);
    return value;
}

/* What no comparison and no limit makes a number of. */
static inline float sf_nan(void) {
    return sf_from_bits(0x7fc00000u);
}

/* Tests the bits, so that no flag removes it. */
static inline int sf_is_nan(float value) {
    return (sf_bits(value) & 0x7fffffffu) > 0x7f800000u;
}

/* 1 for a NaN that comparisons may take for a number: compilers that are told that there is none
 * turn them around, and only those that say otherwise are trusted. */
static inline int sf_is_hidden_nan(float value) {
#if defined(__FINITE_MATH_ONLY__) && (__FINITE_MATH_ONLY__ == 0)
    (void)value;
    return 0;
#else
    return sf_is_nan(value);
#endif
}

/* Limits a value; NaN stays NaN, so that the finite test at the end of a step sees it. */
static inline float sf_clip1(float value, float low, float high) {
    const float limited = value < low ? low : (value > high ? high : value);
    return sf_is_hidden_nan(value) ? value : limited;
}

/* Zero for what lies below zero; NaN stays NaN. */
static inline float sf_relu1(float value) {
    const float limited = value < 0.0f ? 0.0f : value;
    return sf_is_hidden_nan(value) ? value : limited;
}

/* tanh(x) = x P(x^2) / (1 + x^2 Q(x^2)) with absolute error below 5e-7 and magnitude at most one. */
static inline float sf_tanh1(float value) {
    const float x = sf_clip1(value, -7.9f, 7.9f);
    const float z = x * x;
    const float p =
        ((1.14665027e-05f * z + 0.00295382366f) * z + 0.129279107f) * z + 0.999999642f;
    const float q =
        (((2.47282742e-07f * z + 0.000239111949f) * z + 0.0238260068f) * z + 0.462610841f) * z + 1.0f;
    return (x * p) / q;
}

/* 1 / (1 + exp(-x)) through tanh, with absolute error below 3e-7. */
static inline float sf_sigmoid1(float value) {
    return 0.5f * sf_tanh1(0.5f * value) + 0.5f;
}

/* 2^k exp(r): relative error below 3e-7 between the limits, constant beyond. Adding 1.5 * 2^23
 * rounds to the nearest integer, which then lies in the low bits. */
static inline float sf_exp1(float value) {
    const float x = sf_clip1(value, -86.5f, 88.5f);
    const float shifted = x * 1.44269504f + 12582912.0f;
    const float k = shifted - 12582912.0f;
    const float r = (x - k * 0.693359375f) - k * -2.12194440e-4f;
    float p = (((0.00138888889f * r + 0.00833333333f) * r + 0.0416666667f) * r + 0.166666667f) * r +
              0.5f;
    p = (p * r) * r + r + 1.0f;
    const uint32_t exponent = sf_bits(shifted) - 0x4B400000u + 126u;
    return (p * sf_from_bits(exponent << 23)) * 2.0f;
}

/* log(1 + x) for 0 <= x <= 1, with absolute error below 3e-7. */
static inline float sf_log1p1(float x) {
    const float s = x / (2.0f + x);
    const float z = s * s;
    const float p =
        (((0.0909090909f * z + 0.111111111f) * z + 0.142857143f) * z + 0.2f) * z + 0.333333333f;
    return (s + s) * (p * z + 1.0f);
}

/* 1 - erf(z) for z >= 0: Abramowitz and Stegun 7.1.26, absolute error below 4e-7. */
static inline float sf_erfc1(float z) {
    const float t = 1.0f / (1.0f + 0.3275911f * z);
    const float a =
        (((1.061405429f * t + -1.453152027f) * t + 1.421413741f) * t + -0.284496736f) * t +
        0.254829592f;
    return (a * t) * sf_exp1(-(z * z));
}

/* x^(-1/2) for x > 0: an estimate from the bits and three Newton steps. */
static inline float sf_reciprocal_root1(float x) {
    const float half = 0.5f * x;
    float y = sf_from_bits(0x5F375A86u - (sf_bits(x) >> 1));
    for (int i = 0; i < 3; i++) {
        y = y * (1.5f - (half * y) * y);
    }
    return y;
}

#endif
