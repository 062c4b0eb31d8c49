/* Float32 functions with a fixed order of operations; their twins are in export/arithmetic.py.
 * Compile with -ffp-contract=off: a fused multiply-add rounds once where these round twice. */
#ifndef SF_MATH_H
#define SF_MATH_H

/* Limits a value; NaN stays NaN, so that the finite test at the end of a step sees it. */
static inline float sf_clip1(float value, float low, float high) {
    return value < low ? low : (value > high ? high : value);
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

#endif
