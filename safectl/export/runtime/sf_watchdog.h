/* Lets a controller run only while it is armed and its observations are fresh.
 *
 * It starts stopped. Arming succeeds only with a fresh observation. A stale one trips it, and it
 * stays tripped until it is armed again. Time is a free-running 32-bit counter of ticks: ages are
 * differences modulo 2^32, and a stamp from the future is stale. Call a function of this file more
 * often than the counter goes round: a stale observation is then forgotten before it looks fresh. */
#ifndef SF_WATCHDOG_H
#define SF_WATCHDOG_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef enum { SF_STOPPED = 0, SF_RUNNING = 1, SF_TRIPPED = 2 } sf_watchdog_mode;

typedef struct {
    sf_watchdog_mode mode;
    uint32_t limit;  /* largest age of an observation [ticks], below 2^31 */
    uint32_t stamp;  /* of the newest observation; means nothing before the first */
    uint32_t seen;   /* 1 after the first observation */
    uint32_t trips;  /* how often it tripped */
} sf_watchdog;

/* A limit of 2^31 or more is cut to 2^31 - 1. */
void sf_watchdog_init(sf_watchdog *watchdog, uint32_t limit);

/* Takes note of an observation. Returns 1 if it counts: it is fresh, and newer than the last one
 * unless that is stale. A repeated or delayed observation changes nothing. */
int sf_watchdog_observe(sf_watchdog *watchdog, uint32_t stamp, uint32_t now);

/* Starts, if the newest observation is fresh. Returns 1 if it runs afterwards. */
int sf_watchdog_arm(sf_watchdog *watchdog, uint32_t now);

/* Trips if it runs on a stale observation. Returns 1 if it still runs. For periods without one. */
int sf_watchdog_check(sf_watchdog *watchdog, uint32_t now);

/* One period with an observation: takes note of it, and trips if it, or the newest one, is stale.
 * Returns 1 if an action may be computed from it: it is the newest one, for the first time or again.
 * A program with states advances each time. */
int sf_watchdog_run(sf_watchdog *watchdog, uint32_t stamp, uint32_t now);

/* Stops at once, without a trip. */
void sf_watchdog_stop(sf_watchdog *watchdog);

#ifdef __cplusplus
}
#endif

#endif
